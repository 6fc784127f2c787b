//! The masks of 64 bytes in plain Rust: a class byte for each byte, then one bit of eight bytes gathered at a time.

use super::masks::{Ascii, Classify, WINDOW};

#[derive(Clone, Copy)]
pub struct Portable;

impl Classify for Portable {
    #[inline(always)]
    fn ascii(self, block: &[u8; WINDOW]) -> Ascii {
        let mut ascii = Ascii::default();
        for (i, eight) in block.chunks_exact(8).enumerate() {
            let bytes = u64::from_le_bytes(std::array::from_fn(|j| eight[j]));
            let kinds = u64::from_le_bytes(std::array::from_fn(|j| KINDS[eight[j] as usize]));
            let add = |mask: &mut u64, lowest_bits: u64| *mask |= gather(lowest_bits) << (8 * i);
            add(&mut ascii.upper, kinds);
            add(&mut ascii.lower, kinds >> 1);
            add(&mut ascii.number, kinds >> 2);
            add(&mut ascii.space, kinds >> 3);
            add(&mut ascii.blank, kinds >> 4);
            add(&mut ascii.line_end, kinds >> 5);
            add(&mut ascii.apostrophe, kinds >> 6);
            add(&mut ascii.slash, kinds >> 7);
            add(&mut ascii.high, bytes >> 7);
            add(&mut ascii.lead, bytes >> 7 & bytes >> 6);
            add(&mut ascii.lead3, bytes >> 7 & bytes >> 6 & bytes >> 5);
            add(&mut ascii.lead4, bytes >> 7 & bytes >> 6 & bytes >> 5 & bytes >> 4);
        }
        ascii
    }
}

/// The lowest bit of each byte, the first byte's lowest.
#[inline(always)]
fn gather(word: u64) -> u64 {
    (word & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Bits 0 to 7 of an ASCII byte: capital, small letter, number, space, ' ', line end, apostrophe, slash.
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        kinds[byte as usize] = match byte {
            b'A'..=b'Z' => 1,
            b'a'..=b'z' => 1 << 1,
            b'0'..=b'9' => 1 << 2,
            b'\n' | b'\r' => 1 << 3 | 1 << 5,
            b'\t' | 0x0B | 0x0C => 1 << 3,
            b' ' => 1 << 3 | 1 << 4,
            b'\'' => 1 << 6,
            b'/' => 1 << 7,
            _ => 0,
        };
        byte += 1;
    }
    kinds
};
