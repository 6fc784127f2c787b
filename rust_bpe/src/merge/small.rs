//! Merging the shortest sequences, which nearly all pre-tokens are: one array of keys, one word of live positions.
//!
//! As [`super::scan`], without its lists and blocks: the neighbours of a position are the nearest bits of a mask.

use super::{NO_RANK, Ranks};
use crate::token::TokenId;

/// The longest sequence this way is for.
pub(super) const MAX_SMALL: usize = 32;

const POSITION_BITS: u32 = 5;
/// Keys are looked through so many at a time: one or two vectors.
const LANES: usize = 8;
const NO_KEY: i32 = i32::MAX;

/// Merges `symbols`, at most [`MAX_SMALL`] of them, and returns how many tokens now stand at their beginning.
pub(super) fn merge(symbols: &mut [TokenId], ranks: &impl Ranks) -> usize {
    let n = symbols.len();
    if n < 2 {
        return n;
    }
    let mut keys = [NO_KEY; MAX_SMALL];
    for (position, pair) in symbols.windows(2).enumerate() {
        keys[position] = key(ranks.rank(pair[0], pair[1]), position);
    }
    let mut live: u32 = u32::MAX >> (MAX_SMALL - n);
    loop {
        let best = least(&keys, n);
        if best == NO_KEY {
            break;
        }
        let at = best as usize % MAX_SMALL;
        let gone = next(live, at);
        live &= !(1 << gone);
        keys[gone] = NO_KEY;
        symbols[at] = ranks.result(best as u32 >> POSITION_BITS);
        let after = next(live, at);
        keys[at] = if after < n { key(ranks.rank(symbols[at], symbols[after]), at) } else { NO_KEY };
        let before = live & ((1 << at) - 1);
        if before != 0 {
            let before = before.ilog2() as usize;
            keys[before] = key(ranks.rank(symbols[before], symbols[at]), before);
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

#[inline]
fn key(rank: u32, position: usize) -> i32 {
    if rank == NO_RANK { NO_KEY } else { (rank << POSITION_BITS) as i32 | position as i32 }
}

#[inline]
fn least(keys: &[i32; MAX_SMALL], n: usize) -> i32 {
    let mut lanes = [NO_KEY; LANES];
    for chunk in keys.as_chunks::<LANES>().0.iter().take(n.div_ceil(LANES)) {
        for (lane, &key) in lanes.iter_mut().zip(chunk) {
            *lane = key.min(*lane);
        }
    }
    lanes.into_iter().fold(NO_KEY, i32::min)
}

/// The live position after `at`, at least [`MAX_SMALL`] when there is none.
#[inline]
fn next(live: u32, at: usize) -> usize {
    // Two steps, for a shift by all 32 bits is none.
    let above = live >> at >> 1;
    if above == 0 { MAX_SMALL } else { at + 1 + above.trailing_zeros() as usize }
}
