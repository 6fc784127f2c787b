//! The keys of [`super::small`] in registers of AVX2.

#![allow(unsafe_code)] // a call of functions compiled for a processor that was asked; see small.rs for what it gains

use std::arch::x86_64::*;

use super::batch::{self, Lane};
use super::small::{Keys, NO_KEY, merge_with};
use super::{Ranks, Scan};
use crate::processor::Avx2;
use crate::token::TokenId;

/// As [`super::small::merge`].
pub(super) fn merge(_: Avx2, symbols: &mut [TokenId], ranks: &impl Ranks) -> usize {
    // SAFETY: an `Avx2` exists only where the processor was found to have what these are compiled for.
    unsafe {
        match symbols.len() {
            0..=8 => merge_in::<1>(symbols, ranks),
            9..=16 => merge_in::<2>(symbols, ranks),
            _ => merge_in::<4>(symbols, ranks),
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn merge_in<const N: usize>(symbols: &mut [TokenId], ranks: &impl Ranks) -> usize {
    merge_with::<Registers<N>>(symbols, ranks)
}

/// As [`batch::merge_lanes`].
pub(super) fn merge_lanes(_: Avx2, lanes: &mut [Lane], ranks: &impl Ranks) {
    // SAFETY: as above.
    unsafe { merge_lanes_in(lanes, ranks) }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn merge_lanes_in(lanes: &mut [Lane], ranks: &impl Ranks) {
    batch::merge_lanes(lanes, ranks);
}

/// As [`Scan::merge`].
pub(super) fn scan(_: Avx2, scan: &mut Scan, symbols: &mut [TokenId], ranks: &impl Ranks) -> usize {
    // SAFETY: as above.
    unsafe { scan_in(scan, symbols, ranks) }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn scan_in(scan: &mut Scan, symbols: &mut [TokenId], ranks: &impl Ranks) -> usize {
    scan.merge(symbols, ranks)
}

/// Eight keys a register.
struct Registers<const N: usize>([__m256i; N]);

impl<const N: usize> Keys for Registers<N> {
    #[inline(always)]
    fn new() -> Self {
        // SAFETY: these methods are reached from `merge_in` alone.
        unsafe { no_keys() }
    }

    #[inline(always)]
    fn set(&mut self, position: usize, key: i32) {
        // SAFETY: as above.
        unsafe { set(self, position, key) }
    }

    #[inline(always)]
    fn least(&self) -> i32 {
        // SAFETY: as above.
        unsafe { least(self) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn no_keys<const N: usize>() -> Registers<N> {
    Registers([_mm256_set1_epi32(NO_KEY); N])
}

/// No branch and no memory: each register takes the key in the lane whose number is `position`.
#[inline]
#[target_feature(enable = "avx2")]
fn set<const N: usize>(keys: &mut Registers<N>, position: usize, key: i32) {
    let (key, position) = (_mm256_set1_epi32(key), _mm256_set1_epi32(position as i32));
    for (index, register) in keys.0.iter_mut().enumerate() {
        let lanes = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(8 * index as i32));
        *register = _mm256_blendv_epi8(*register, key, _mm256_cmpeq_epi32(lanes, position));
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn least<const N: usize>(keys: &Registers<N>) -> i32 {
    let eight = keys.0.into_iter().reduce(|a, b| _mm256_min_epi32(a, b)).unwrap_or(_mm256_set1_epi32(NO_KEY));
    let four = _mm_min_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
    let two = _mm_min_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_min_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}
