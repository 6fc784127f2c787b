//! [`super::lookup`] with keys in registers of AVX2's processors: a pre-token is loaded, masked and compared as one.

#![allow(unsafe_code)] // see below; warm encoding of English is 1.4 times as fast: benches/encode.rs

use std::arch::x86_64::*;

use super::Id;
use super::entry::{KEY_BITS, LOW_BYTES, SHORT_BYTES, ShortKey, count_of};
use super::lookup::{Entry, Keys, Known, Look, Portable, Run, make_key, make_keys_by, run_by};
use crate::checksum::{Stream, Streams};
use crate::processor::{Avx2, Sha};

/// As [`super::lookup::make_keys`].
pub(super) fn make_keys(
    avx2: Avx2,
    words: impl Known,
    text: &[u8],
    start: usize,
    ends: &[usize],
    keys: &mut Keys,
    streams: &mut Streams,
) {
    // SAFETY: an `Avx2`, and a `Sha`, exist only where the processor was found to have what these are compiled for.
    unsafe {
        if !streams.left().is_empty() && Sha::detect().is_some() {
            enter_make_keys_and_hash(avx2, words, text, start, ends, keys, streams);
        } else {
            enter_make_keys(avx2, words, text, start, ends, keys);
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn enter_make_keys(avx2: Avx2, words: impl Known, text: &[u8], start: usize, ends: &[usize], keys: &mut Keys) {
    make_keys_by(avx2, words, text, start, ends, keys);
}

/// Keys that are made beside the sixteen steps of a block, of 64 bytes: where they are words of English, text is hashed as
/// fast as it is encoded.
const KEYS: usize = 14;

/// A step of hashing behind each key: the instructions of each fill the pauses of the other. Where a whole block is hashed
/// after so many keys, it takes twice as long.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,sha")]
fn enter_make_keys_and_hash(
    avx2: Avx2,
    words: impl Known,
    text: &[u8],
    mut start: usize,
    ends: &[usize],
    keys: &mut Keys,
    streams: &mut Streams,
) {
    let mut n_made = 0;
    for (ends, keys) in ends.as_chunks().0.iter().zip(keys.as_chunks_mut().0) {
        match streams.left() {
            [] => break,
            [one] => make_some(avx2, words, text, start, ends, keys, [one]),
            [one, two, ..] => make_some(avx2, words, text, start, ends, keys, [one, two]),
        }
        start = ends[KEYS - 1];
        n_made += KEYS;
    }
    make_keys_by(avx2, words, text, start, &ends[n_made..], &mut keys[n_made..]);
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,sha")]
fn make_some<K: Known, const N: usize>(
    avx2: Avx2,
    words: K,
    text: &[u8],
    mut start: usize,
    ends: &[usize; KEYS],
    keys: &mut [(ShortKey, u64); KEYS],
    mut streams: [&mut Stream; N],
) {
    let mut compressions = streams.each_mut().map(|stream| stream.begin());
    macro_rules! each {
        ($($step:literal)*) => {$(
            keys[$step] = make_key(avx2, words, text, start, ends[$step]);
            start = ends[$step];
            for compression in &mut compressions {
                compression.step_here::<$step>();
            }
        )*};
    }
    each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
    for compression in &mut compressions {
        compression.step_here::<14>();
        compression.step_here::<15>();
    }
    streams.into_iter().zip(compressions).for_each(|(stream, compression)| stream.end(compression));
}

/// As [`super::lookup::run`].
pub(super) fn run<T: Id>(avx2: Avx2, words: impl Known, keys: &[(ShortKey, u64)], ids: &mut [T]) -> Run {
    // SAFETY: as above.
    unsafe { enter_run(avx2, words, keys, ids) }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn enter_run<T: Id>(avx2: Avx2, words: impl Known, keys: &[(ShortKey, u64)], ids: &mut [T]) -> Run {
    run_by(avx2, words, keys, ids)
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
    #[inline(always)]
    fn key(self, text: &[u8], start: usize, end: usize) -> ShortKey {
        let Some(bytes) = text.get(start..).and_then(|rest| rest.first_chunk::<16>()) else {
            return Portable.key(text, start, end);
        };
        let length = (end - start).min(SHORT_BYTES + 1);
        let mut key = [0; 2];
        // SAFETY: an `Avx2` exists only where the processor was found to have these instructions; each load reads and the
        // store writes 16 bytes, unaligned, where so many are.
        unsafe {
            let keep = _mm_loadu_si128((&raw const KEEP[length]).cast());
            let mark = _mm_loadu_si128((&raw const LENGTH[length]).cast());
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm_storeu_si128(key.as_mut_ptr().cast(), _mm_or_si128(_mm_and_si128(bytes, keep), mark));
        }
        key
    }

    /// Taken into `enter_run` whole: a call for each pre-token costs as much as the look.
    #[inline(always)]
    fn find(self, bucket: &[[u64; 4]; 2], key: &ShortKey) -> Entry {
        // SAFETY: as above.
        unsafe {
            let key = _mm_loadu_si128(key.as_ptr().cast());
            let key_bits = _mm_set_epi64x(KEY_BITS as i64, -1);
            let is_same = |entry: &[u64; 4]| {
                let other = _mm_and_si128(_mm_loadu_si128(entry.as_ptr().cast()), key_bits);
                _mm_movemask_epi8(_mm_cmpeq_epi64(key, other)) == 0xFFFF
            };
            let entry = &bucket[usize::from(!is_same(&bucket[0]))];
            ([entry[2], entry[3]], if is_same(entry) { count_of(entry[1]) } else { 0 })
        }
    }
}
