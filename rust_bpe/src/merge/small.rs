//! Merging the shortest sequences, which nearly all pre-tokens are: all keys are looked through, one word of live positions.
//!
//! As [`super::scan`], without its lists and blocks: the neighbours of a position are the nearest bits of a mask. The keys
//! are kept as the processor likes: in an array, or in its registers ([`super::avx2`]), where a key that was just set
//! need not come back through memory, which costs more than all else here.

use super::{NO_RANK, Ranks};
use crate::token::TokenId;

/// The longest sequence this way is for.
pub(super) const MAX_SMALL: usize = 32;

pub(super) const POSITION_BITS: u32 = 5;
pub(super) const NO_KEY: i32 = i32::MAX;

/// A key for each position, at most [`MAX_SMALL`].
pub(super) trait Keys {
    /// [`NO_KEY`] everywhere.
    fn new() -> Self;

    fn set(&mut self, position: usize, key: i32);

    fn least(&self) -> i32;
}

/// `N` keys, looked through in vectors.
pub(super) struct Array<const N: usize>([i32; N]);

impl<const N: usize> Keys for Array<N> {
    fn new() -> Self {
        Self([NO_KEY; N])
    }

    #[inline(always)]
    fn set(&mut self, position: usize, key: i32) {
        self.0[position % N] = key;
    }

    #[inline(always)]
    fn least(&self) -> i32 {
        const LANES: usize = 8;
        let mut lanes = [NO_KEY; LANES];
        for chunk in self.0.as_chunks::<LANES>().0 {
            for (lane, &key) in lanes.iter_mut().zip(chunk) {
                *lane = key.min(*lane);
            }
        }
        lanes.into_iter().fold(NO_KEY, i32::min)
    }
}

/// Merges `symbols`, at most [`MAX_SMALL`] of them, and returns how many tokens now stand at their beginning.
pub(super) fn merge(symbols: &mut [TokenId], ranks: &impl Ranks) -> usize {
    match symbols.len() {
        0..=8 => merge_with::<Array<8>>(symbols, ranks),
        9..=16 => merge_with::<Array<16>>(symbols, ranks),
        _ => merge_with::<Array<32>>(symbols, ranks),
    }
}

/// The same with keys that have room for all of `symbols`.
#[inline(always)]
pub(super) fn merge_with<K: Keys>(symbols: &mut [TokenId], ranks: &impl Ranks) -> usize {
    let n = symbols.len();
    if n < 2 {
        return n;
    }
    let mut keys = K::new();
    for (position, pair) in symbols.windows(2).enumerate() {
        keys.set(position, key(ranks.rank(pair[0], pair[1]), position));
    }
    let mut live: u32 = u32::MAX >> (MAX_SMALL - n);
    loop {
        let best = keys.least();
        if best == NO_KEY {
            break;
        }
        let at = best as usize % MAX_SMALL;
        let gone = next(live, at);
        live &= !(1 << gone);
        keys.set(gone, NO_KEY);
        let merged = ranks.result(best as u32 >> POSITION_BITS);
        symbols[at] = merged;
        let after = next(live, at);
        keys.set(at, if after < n { key(ranks.rank(merged, symbols[after]), at) } else { NO_KEY });
        let before = live & ((1 << at) - 1);
        if before != 0 {
            let before = before.ilog2() as usize;
            keys.set(before, key(ranks.rank(symbols[before], merged), before));
        }
    }
    let mut n_tokens = 0;
    while live != 0 {
        symbols[n_tokens] = symbols[live.trailing_zeros() as usize];
        n_tokens += 1;
        live &= live - 1;
    }
    n_tokens
}

#[inline(always)]
fn key(rank: u32, position: usize) -> i32 {
    if rank == NO_RANK { NO_KEY } else { (rank << POSITION_BITS) as i32 | position as i32 }
}

/// The live position after `at`, at least [`MAX_SMALL`] when there is none.
#[inline(always)]
pub(super) fn next(live: u32, at: usize) -> usize {
    // Two steps, for a shift by all 32 bits is none.
    let above = live >> at >> 1;
    if above == 0 { MAX_SMALL } else { at + 1 + above.trailing_zeros() as usize }
}
