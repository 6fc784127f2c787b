//! The masks of 64 bytes by AVX-512, and the places of a mask written a vector at a time.

#![allow(unsafe_code)] // English is scanned at 1.6 times the speed of AVX2: benches/pretokenize.rs measures both

use std::arch::x86_64::*;

use super::PRETOKEN_BATCH;
use super::blocks::{Scanner, fill};
use super::masks::{Ascii, Classify, WINDOW};
use crate::error::Result;
use crate::processor::Avx512;

impl Avx512 {
    /// [`fill`], compiled for this processor.
    pub fn fill<S: Scanner>(self, text: &[u8], start: usize, ends: &mut Vec<usize>) -> Result<()> {
        // SAFETY: `self` exists only where the processor was found to have what `enter` is compiled for.
        unsafe { enter::<S>(self, text, start, ends) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,bmi1,bmi2,lzcnt,popcnt")]
fn enter<S: Scanner>(avx512: Avx512, text: &[u8], start: usize, ends: &mut Vec<usize>) -> Result<()> {
    fill::<S>(avx512, text, start, ends)
}

impl Classify for Avx512 {
    #[inline(always)]
    fn ascii(self, block: &[u8; WINDOW]) -> Ascii {
        // SAFETY: `self` exists as above.
        unsafe { ascii(block) }
    }

    #[inline(always)]
    fn write_places(self, bits: u64, at: usize, room: &mut [usize; WINDOW]) -> usize {
        // SAFETY: as above.
        unsafe { write_places(bits, at, room) }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn ascii(block: &[u8; WINDOW]) -> Ascii {
    // SAFETY: a block is 64 bytes, what an unaligned load reads.
    let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
    let equal = |byte: u8| _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(byte as i8));
    let within = |bytes, first: u8, n: u8| {
        let from_first = _mm512_sub_epi8(bytes, _mm512_set1_epi8(first as i8));
        _mm512_cmplt_epu8_mask(from_first, _mm512_set1_epi8(n as i8))
    };
    let at_least = |byte: u8| _mm512_cmpge_epu8_mask(bytes, _mm512_set1_epi8(byte as i8));
    let letter = within(_mm512_or_si512(bytes, _mm512_set1_epi8(0x20)), b'a', 26);
    let bit5 = _mm512_test_epi8_mask(bytes, _mm512_set1_epi8(0x20));
    let blank = equal(b' ');
    Ascii {
        upper: letter & !bit5,
        lower: letter & bit5,
        number: within(bytes, b'0', 10),
        space: blank | within(bytes, b'\t', 5),
        blank,
        line_end: equal(b'\n') | equal(b'\r'),
        apostrophe: equal(b'\''),
        slash: equal(b'/'),
        high: _mm512_movepi8_mask(bytes),
        lead: at_least(0xC0),
        lead3: at_least(0xE0),
        lead4: at_least(0xF0),
    }
}

/// The places of a window, for [`write_places`] to take some of.
static PLACES: [u8; WINDOW] = {
    let mut places = [0; WINDOW];
    let mut place = 0;
    while place < WINDOW {
        places[place] = place as u8;
        place += 1;
    }
    places
};

/// As [`Classify::write_places`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
fn write_places(bits: u64, at: usize, room: &mut [usize; WINDOW]) -> usize {
    const LANES: usize = 8;
    const { assert!(size_of::<usize>() == 8 && PRETOKEN_BATCH >= WINDOW) };
    let n_bits = bits.count_ones() as usize;
    let at = _mm512_set1_epi64(at as i64);
    // SAFETY: `PLACES` is 64 bytes.
    let places = _mm512_maskz_compress_epi8(bits, unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) });
    let mut write = |step: usize, sixteen: __m128i| {
        let (first, second) = (sixteen, _mm_bsrli_si128::<8>(sixteen));
        for (half, eight) in [first, second].into_iter().enumerate() {
            let ends = _mm512_add_epi64(_mm512_cvtepu8_epi64(eight), at);
            let eighth = &mut room[step * 2 * LANES + half * LANES..][..LANES];
            // SAFETY: `eighth` has room for eight numbers of 64 bits, what an unaligned store writes.
            unsafe { _mm512_storeu_si512(eighth.as_mut_ptr().cast(), ends) };
        }
    };
    // English has 12 pre-tokens in a window: nearly always one step.
    write(0, _mm512_castsi512_si128(places));
    if n_bits > 2 * LANES {
        write(1, _mm512_extracti32x4_epi32::<1>(places));
        write(2, _mm512_extracti32x4_epi32::<2>(places));
        write(3, _mm512_extracti32x4_epi32::<3>(places));
    }
    n_bits
}
