//! A sequence whose neighbours join: its live positions as a linked list, each with the rank of the pair that begins there.

use super::compact;
use super::{NO_RANK, Ranks};
use crate::token::TokenId;

#[derive(Default)]
pub(super) struct Chain {
    /// The rank of the pair that begins at each position now.
    ranks: Vec<u32>,
    previous: Vec<u32>,
    next: Vec<u32>,
}

impl Chain {
    /// Begins with `symbols`, fewer than 2^32.
    pub fn start(&mut self, symbols: &[TokenId], ranks: &impl Ranks) {
        let n = symbols.len();
        self.next.clear();
        self.next.extend(1..=n as u32);
        self.previous.clear();
        self.previous.extend((0..n as u32).map(|position| position.wrapping_sub(1)));
        self.ranks.clear();
        self.ranks.extend(symbols.windows(2).map(|pair| ranks.rank(pair[0], pair[1])));
        self.ranks.resize(n, NO_RANK);
    }

    /// The ranks and positions of the pairs that merge.
    pub fn pairs(&self) -> impl Iterator<Item = (u32, usize)> {
        self.ranks.iter().enumerate().filter(|&(_, &rank)| rank != NO_RANK).map(|(position, &rank)| (rank, position))
    }

    /// Merges the pair at a position, unless another stands there by now; tells the ranks and positions of new pairs.
    #[inline]
    pub fn join(
        &mut self,
        (rank, at): (u32, usize),
        symbols: &mut [TokenId],
        ranks: &impl Ranks,
        mut found: impl FnMut(u32, usize),
    ) {
        if self.ranks[at] != rank {
            return;
        }
        let gone = self.next[at] as usize;
        let after = self.next[gone] as usize;
        symbols[at] = ranks.result(rank);
        self.next[at] = after as u32;
        self.ranks[gone] = NO_RANK;
        self.ranks[at] = NO_RANK;
        let mut set = |position: usize, rank: u32| {
            self.ranks[position] = rank;
            if rank != NO_RANK {
                found(rank, position);
            }
        };
        if at > 0 {
            let before = self.previous[at] as usize;
            set(before, ranks.rank(symbols[before], symbols[at]));
        }
        if after < symbols.len() {
            self.previous[after] = at as u32;
            set(at, ranks.rank(symbols[at], symbols[after]));
        }
    }

    /// Moves the tokens that are left together.
    pub fn compact(&self, symbols: &mut Vec<TokenId>) {
        let n_tokens = compact(symbols, |position| self.next[position] as usize);
        symbols.truncate(n_tokens);
    }
}
