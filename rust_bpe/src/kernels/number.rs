//! Numbers as torch stores them: float32, and the bits of bfloat16, which numpy has no name for.

/// A number that is computed with as a float32.
pub trait Number: Copy + Default + Send + Sync {
    fn to_f32(self) -> f32;
    fn from_f32(number: f32) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(number: f32) -> Self {
        number
    }
}

/// The bits of a bfloat16: the upper half of a float32's.
impl Number for u16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    #[inline(always)]
    fn from_f32(number: f32) -> Self {
        let bits = number.to_bits();
        let to_nearest_even = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
        // One that is no number could be rounded to infinity.
        (if number.is_nan() { bits >> 16 | 0x40 } else { to_nearest_even }) as u16
    }
}

/// e to a power that is not above zero, but for the last bit or two; 0 where the result is not a normal number.
#[inline(always)]
pub fn exponential(x: f32) -> f32 {
    /// 1.5 * 2^23: a number that is added to it loses what is behind the point.
    const ROUNDER: f32 = 12_582_912.0;
    /// ln 2, in a part whose multiples by 8 bits are exact, and the rest.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    const LOWEST: f32 = -87.0;
    // x = n ln 2 + r, |r| <= ln 2 / 2; e^r by its Taylor series, whose next term is below 6e-9.
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let r = n.mul_add(-LN_2[1], n.mul_add(-LN_2[0], x));
    let mut sum = 1.0 / 5040.0;
    for term in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = r.mul_add(sum, term);
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127) << 23);
    if x < LOWEST { 0.0 } else { sum * power }
}
