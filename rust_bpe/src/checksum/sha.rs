//! Blocks compressed by the SHA instructions of x86, of two streams at once or in steps between those of other work: while
//! one waits for its last round, the other goes on.
//!
//! The order of instructions is Intel's ("Intel SHA Extensions", 2013): a register has words a, b, e, f of the state and
//! another one c, d, g, h; an instruction does two rounds, and others make the words of the next sixteen.

#![allow(unsafe_code)] // a call of a function compiled for a processor that was asked; two streams in 0.55 of their time

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Block, State, Stream};
use crate::processor::Sha;

/// Compresses as many blocks of one stream as of the other.
pub(super) fn compress_both(_: Sha, states: [&mut State; 2], blocks: [&[Block]; 2]) {
    // SAFETY: a `Sha` exists only where the processor was found to have what this is compiled for.
    unsafe { enter(states, blocks) }
}

/// The state of a stream: a, b, e, f and c, d, g, h, from the last lane to the first.
type Halves = [__m128i; 2];
/// Sixteen words of a block, in four rounds' pieces.
type Words = [__m128i; 4];

/// A block that is being compressed, in sixteen steps of four rounds each.
pub(crate) struct Compression {
    before: Halves,
    now: Halves,
    words: Words,
}

impl Compression {
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn new(before: Halves, block: &Block) -> Self {
        Self { before, now: before, words: words_of(block) }
    }

    /// All steps are to be taken, in their order.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn step<const STEP: usize>(&mut self) {
        four_rounds::<STEP>(&mut self.now, &mut self.words);
    }

    /// The same behind all that is done before and ahead of all that is done later: the compiler likes to put the steps of a
    /// block together, where they wait for each other alone.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub fn step_here<const STEP: usize>(&mut self) {
        self.step::<STEP>();
        // SAFETY: there is no instruction in it.
        unsafe { asm!("/* {} */", inout(xmm_reg) self.now[0], options(nostack, preserves_flags)) };
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn finish(self) -> Halves {
        let Self { before, now, .. } = self;
        [_mm_add_epi32(now[0], before[0]), _mm_add_epi32(now[1], before[1])]
    }
}

impl Stream<'_> {
    /// The next block, of a stream that has one; [`Stream::end`] takes it when all its steps are taken.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub fn begin(&mut self) -> Compression {
        let block = self.take(1);
        Compression::new(halves(self.state), &block[0])
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub fn end(&mut self, compression: Compression) {
        *self.state = state_of(compression.finish());
    }
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn enter(states: [&mut State; 2], [first, second]: [&[Block]; 2]) {
    let [mut one, mut two] = [halves(states[0]), halves(states[1])];
    for (first, second) in first.iter().zip(second) {
        let (mut this, mut that) = (Compression::new(one, first), Compression::new(two, second));
        // A loop is not unrolled by itself, which takes twice the time: places among the words must be known.
        macro_rules! both {
            ($($step:literal)*) => {$(
                this.step::<$step>();
                that.step::<$step>();
            )*};
        }
        both!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        (one, two) = (this.finish(), that.finish());
    }
    *states[0] = state_of(one);
    *states[1] = state_of(two);
}

/// Rounds 4 `PIECE` and on, and the words that are wanted 16 rounds later.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn four_rounds<const PIECE: usize>([abef, cdgh]: &mut Halves, words: &mut Words) {
    let [now, next, third, last] = [0, 1, 2, 3].map(|ahead| words[(PIECE + ahead) % 4]);
    let [w, x, y, z] = CONSTANTS[PIECE];
    let keyed = _mm_add_epi32(now, _mm_setr_epi32(w, x, y, z));
    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, keyed);
    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0b00_00_11_10>(keyed));
    if PIECE < 12 {
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(now, next), _mm_alignr_epi8::<4>(last, third));
        words[PIECE % 4] = _mm_sha256msg2_epu32(sum, last);
    }
}

#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn words_of(block: &Block) -> Words {
    let big_endian = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
    let (quads, _) = block.as_chunks::<8>();
    let quad = |index: usize| i64::from_le_bytes(quads[index]);
    [0, 2, 4, 6].map(|index| _mm_shuffle_epi8(_mm_set_epi64x(quad(index + 1), quad(index)), big_endian))
}

#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn halves(state: &State) -> Halves {
    let [a, b, c, d, e, f, g, h] = state.map(|word| word as i32);
    [_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h)]
}

#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn state_of([abef, cdgh]: Halves) -> State {
    let lanes = |half| {
        [
            _mm_extract_epi32::<3>(half),
            _mm_extract_epi32::<2>(half),
            _mm_extract_epi32::<1>(half),
            _mm_extract_epi32::<0>(half),
        ]
    };
    let ([a, b, e, f], [c, d, g, h]) = (lanes(abef), lanes(cdgh));
    [a, b, c, d, e, f, g, h].map(|word| word as u32)
}

/// FIPS 180-4, 4.2.2.
#[rustfmt::skip]
const CONSTANTS: [[i32; 4]; 16] = signed([
    [0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5], [0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5],
    [0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3], [0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174],
    [0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC], [0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA],
    [0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7], [0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967],
    [0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13], [0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85],
    [0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3], [0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070],
    [0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5], [0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3],
    [0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208], [0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2],
]);

const fn signed(words: [[u32; 4]; 16]) -> [[i32; 4]; 16] {
    let mut all = [[0; 4]; 16];
    let mut index = 0;
    while index < 64 {
        all[index / 4][index % 4] = words[index / 4][index % 4] as i32;
        index += 1;
    }
    all
}
