//! [`super::lookup`] with keys in registers of AVX2's processors: a pre-token is loaded, masked and compared as one.

#![allow(unsafe_code)] // see below; warm encoding of English is 1.4 times as fast: benches/encode.rs

use std::arch::x86_64::*;

use super::Id;
use super::lookup::{Entry, Look, Portable, Run, run_by};
use super::words::{KEY_BITS, LOW_BYTES, SHORT_BYTES, ShortWords, count_of};
use crate::processor::Avx2;

/// As [`super::lookup::run`].
pub(super) fn run<T: Id>(
    avx2: Avx2,
    words: &ShortWords,
    text: &[u8],
    start: usize,
    ends: &[usize],
    ids: &mut [T],
) -> Run {
    // SAFETY: an `Avx2` exists only where the processor was found to have what this is compiled for.
    unsafe { enter(avx2, words, text, start, ends, ids) }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn enter<T: Id>(avx2: Avx2, words: &ShortWords, text: &[u8], start: usize, ends: &[usize], ids: &mut [T]) -> Run {
    run_by(avx2, words, text, start, ends, ids)
}

/// What makes a key of 16 bytes, by the length of a pre-token: ones in its bytes, and the length in the last. Behind them
/// that of no pre-token.
static KEEP: [u128; SHORT_BYTES + 2] = {
    let mut keep = [0; SHORT_BYTES + 2];
    let mut length = 1;
    while length <= SHORT_BYTES {
        keep[length] = LOW_BYTES[length];
        length += 1;
    }
    keep
};
static LENGTH: [u128; SHORT_BYTES + 2] = {
    let mut lengths = [0; SHORT_BYTES + 2];
    let mut length = 0;
    while length <= SHORT_BYTES {
        lengths[length] = (length as u128) << 120;
        length += 1;
    }
    lengths[SHORT_BYTES + 1] = u128::MAX;
    lengths
};

impl Look for Avx2 {
    /// Taken into `enter` whole: a call for each pre-token costs as much as the look.
    #[inline(always)]
    fn look(self, words: &ShortWords, text: &[u8], start: usize, end: usize) -> Entry {
        let Some(bytes) = text.get(start..).and_then(|rest| rest.first_chunk::<16>()) else {
            return Portable.look(words, text, start, end);
        };
        let length = (end - start).min(SHORT_BYTES + 1);
        // SAFETY: an `Avx2` exists only where the processor was found to have these instructions; each load reads 16
        // bytes, unaligned, from a reference to so many.
        unsafe {
            let keep = _mm_loadu_si128((&raw const KEEP[length]).cast());
            let mark = _mm_loadu_si128((&raw const LENGTH[length]).cast());
            let key = _mm_or_si128(_mm_and_si128(_mm_loadu_si128(bytes.as_ptr().cast()), keep), mark);
            let key_words = [_mm_cvtsi128_si64(key) as u64, _mm_extract_epi64::<1>(key) as u64];
            let Some([newer, older]) = words.bucket(&key_words) else { return ([0; 2], 0) };
            let key_bits = _mm_set_epi64x(KEY_BITS as i64, -1);
            let newer_key = _mm_and_si128(_mm_loadu_si128(newer.as_ptr().cast()), key_bits);
            let older_key = _mm_and_si128(_mm_loadu_si128(older.as_ptr().cast()), key_bits);
            let is_newer = _mm_movemask_epi8(_mm_cmpeq_epi64(key, newer_key)) == 0xFFFF;
            let is_older = _mm_movemask_epi8(_mm_cmpeq_epi64(key, older_key)) == 0xFFFF;
            let entry = if is_older { older } else { newer };
            ([entry[2], entry[3]], if is_newer | is_older { count_of(entry[1]) } else { 0 })
        }
    }
}
