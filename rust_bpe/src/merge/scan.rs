//! Merging short sequences: the ranks stand in an array, and its minimum is found by looking at all of it.
//!
//! A key is a rank and a position in one number, so that the least key is the leftmost of the lowest rank. Positions do
//! not move; a symbol that is swallowed leaves a hole. Blocks remember their minimum: a merge changes three keys, looks
//! through at most three blocks and then through the minima.

use super::compact;
use super::{NO_RANK, Ranks};
use crate::token::TokenId;

/// The longest sequence this way is for.
pub(crate) const MAX_SCAN: usize = 1 << POSITION_BITS;

const POSITION_BITS: u32 = 10;
const BLOCK: usize = 32;
const N_BLOCKS: usize = MAX_SCAN / BLOCK;

/// Signed, since baseline x86-64 compares vectors of signed numbers only.
const NO_KEY: i32 = i32::MAX;

pub(crate) struct Scan {
    keys: [[i32; BLOCK]; N_BLOCKS],
    minima: [i32; N_BLOCKS],
    previous: [u16; MAX_SCAN],
    next: [u16; MAX_SCAN],
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            keys: [[NO_KEY; BLOCK]; N_BLOCKS],
            minima: [NO_KEY; N_BLOCKS],
            previous: [0; MAX_SCAN],
            next: [0; MAX_SCAN],
        }
    }
}

impl Scan {
    /// Merges `symbols`, at most [`MAX_SCAN`] of them, and returns how many tokens now stand at their beginning.
    #[inline(always)]
    pub fn merge(&mut self, symbols: &mut [TokenId], ranks: &impl Ranks) -> usize {
        let n = symbols.len();
        if n < 2 {
            return n;
        }
        let n_blocks = n.div_ceil(BLOCK);
        self.start(symbols, ranks, n_blocks);
        loop {
            let best = self.minima[..n_blocks].iter().copied().min().unwrap_or(NO_KEY);
            if best == NO_KEY {
                break;
            }
            let at = best as usize & (MAX_SCAN - 1);
            let gone = self.next[at] as usize;
            let after = self.next[gone] as usize;
            symbols[at] = ranks.result(best as u32 >> POSITION_BITS);
            self.next[at] = after as u16;
            self.set(gone, NO_RANK);
            if after < n {
                self.previous[after] = at as u16;
                self.set(at, ranks.rank(symbols[at], symbols[after]));
            } else {
                self.set(at, NO_RANK);
            }
            if at > 0 {
                let before = self.previous[at] as usize;
                self.set(before, ranks.rank(symbols[before], symbols[at]));
                self.refresh(before / BLOCK);
            }
            self.refresh(at / BLOCK);
            if gone / BLOCK != at / BLOCK {
                self.refresh(gone / BLOCK);
            }
        }
        compact(symbols, |position| self.next[position] as usize)
    }

    #[inline(always)]
    fn start(&mut self, symbols: &[TokenId], ranks: &impl Ranks, n_blocks: usize) {
        for (position, pair) in symbols.windows(2).enumerate() {
            self.set(position, ranks.rank(pair[0], pair[1]));
        }
        for position in symbols.len() - 1..n_blocks * BLOCK {
            self.set(position, NO_RANK);
        }
        for position in 0..symbols.len() {
            self.next[position] = position as u16 + 1;
            self.previous[position] = (position as u16).wrapping_sub(1);
        }
        for block in 0..n_blocks {
            self.refresh(block);
        }
    }

    #[inline(always)]
    fn set(&mut self, position: usize, rank: u32) {
        self.keys[position / BLOCK][position % BLOCK] =
            if rank == NO_RANK { NO_KEY } else { (rank << POSITION_BITS) as i32 | position as i32 };
    }

    #[inline(always)]
    fn refresh(&mut self, block: usize) {
        self.minima[block] = self.keys[block].iter().copied().fold(NO_KEY, i32::min);
    }
}
