//! The masks of 64 bytes by AVX2, and the only unsafe code of the pre-tokenizers.

#![allow(unsafe_code)] // the masks take a twelfth of the portable time: benches/pretokenize.rs measures both

use std::arch::x86_64::*;

use super::blocks::{Scanner, fill};
use super::masks::{Ascii, Classify, WINDOW};
use crate::error::Result;
use crate::processor::Avx2;

impl Avx2 {
    /// [`fill`], compiled for this processor.
    pub fn fill<S: Scanner>(self, text: &[u8], start: usize, ends: &mut Vec<usize>) -> Result<()> {
        // SAFETY: `self` exists only where the processor was found to have what `enter` is compiled for.
        unsafe { enter::<S>(self, text, start, ends) }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn enter<S: Scanner>(avx2: Avx2, text: &[u8], start: usize, ends: &mut Vec<usize>) -> Result<()> {
    fill::<S>(avx2, text, start, ends)
}

impl Classify for Avx2 {
    #[inline(always)]
    fn ascii(self, block: &[u8; WINDOW]) -> Ascii {
        // SAFETY: `self` exists only where the processor was found to have AVX2.
        unsafe { ascii(block) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn ascii(block: &[u8; WINDOW]) -> Ascii {
    let (low, high) = block.split_at(WINDOW / 2);
    // SAFETY: both halves are 32 bytes, what an unaligned load reads.
    let halves = unsafe { [_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())] };
    let mask = |of: &dyn Fn(__m256i) -> __m256i| {
        let [low, high] = [of(halves[0]), of(halves[1])].map(|half| _mm256_movemask_epi8(half) as u32 as u64);
        low | high << 32
    };
    let equal = |byte: u8| mask(&|half| _mm256_cmpeq_epi8(half, _mm256_set1_epi8(byte as i8)));
    // Bytes from `first` to `first + n - 1`, after bits are set: x is one where min(x - first, n - 1) == x - first.
    let within = |set: u8, first: u8, n: u8| {
        mask(&|half| {
            let from_first =
                _mm256_sub_epi8(_mm256_or_si256(half, _mm256_set1_epi8(set as i8)), _mm256_set1_epi8(first as i8));
            _mm256_cmpeq_epi8(_mm256_min_epu8(from_first, _mm256_set1_epi8(n as i8 - 1)), from_first)
        })
    };
    let letter = within(0x20, b'a', 26);
    // A shift of words lifts a lower bit of every byte to where the mask is taken from.
    let high = mask(&|half| half);
    let bit6 = mask(&|half| _mm256_slli_epi16::<1>(half));
    let bit5 = mask(&|half| _mm256_slli_epi16::<2>(half));
    let bit4 = mask(&|half| _mm256_slli_epi16::<3>(half));
    let blank = equal(b' ');
    Ascii {
        upper: letter & !bit5,
        lower: letter & bit5,
        number: within(0, b'0', 10),
        space: blank | within(0, b'\t', 5),
        blank,
        line_end: equal(b'\n') | equal(b'\r'),
        apostrophe: equal(b'\''),
        slash: equal(b'/'),
        high,
        lead: high & bit6,
        lead3: high & bit6 & bit5,
        lead4: high & bit6 & bit5 & bit4,
    }
}
