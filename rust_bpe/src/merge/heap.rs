//! Merging sequences of any length in time n log n: a heap of keys, stale ones dropped when they come up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{NO_RANK, Ranks};
use crate::token::TokenId;

#[derive(Default)]
pub(crate) struct Heap {
    /// Rank and position in one number: the least is the leftmost of the lowest rank.
    keys: BinaryHeap<Reverse<u64>>,
    /// The rank of the pair that begins at each position now; a key that differs is stale.
    ranks: Vec<u32>,
    previous: Vec<u32>,
    next: Vec<u32>,
}

impl Heap {
    /// Merges `symbols` in place; there must be fewer than 2^32.
    pub fn merge(&mut self, symbols: &mut Vec<TokenId>, ranks: &impl Ranks) {
        let n = symbols.len();
        self.start(symbols, ranks);
        while let Some(Reverse(key)) = self.keys.pop() {
            let (rank, at) = ((key >> 32) as u32, key as u32 as usize);
            if self.ranks[at] != rank {
                continue;
            }
            let gone = self.next[at] as usize;
            let after = self.next[gone] as usize;
            symbols[at] = ranks.result(rank);
            self.next[at] = after as u32;
            self.ranks[gone] = NO_RANK;
            self.ranks[at] = NO_RANK;
            if after < n {
                self.previous[after] = at as u32;
                self.set(at, ranks.rank(symbols[at], symbols[after]));
            }
            if at > 0 {
                let before = self.previous[at] as usize;
                self.set(before, ranks.rank(symbols[before], symbols[at]));
            }
        }
        self.compact(symbols);
    }

    fn start(&mut self, symbols: &[TokenId], ranks: &impl Ranks) {
        let n = symbols.len();
        self.next.clear();
        self.next.extend(1..=n as u32);
        self.previous.clear();
        self.previous.extend((0..n as u32).map(|position| position.wrapping_sub(1)));
        self.ranks.clear();
        self.ranks.extend(symbols.windows(2).map(|pair| ranks.rank(pair[0], pair[1])));
        self.ranks.resize(n, NO_RANK);
        // One heap built at once takes linear time, and reuses its buffer.
        let mut keys = std::mem::take(&mut self.keys).into_vec();
        keys.clear();
        let known = self.ranks.iter().enumerate().filter(|&(_, &rank)| rank != NO_RANK);
        keys.extend(known.map(|(position, &rank)| Reverse(key(rank, position))));
        self.keys = BinaryHeap::from(keys);
    }

    fn set(&mut self, position: usize, rank: u32) {
        self.ranks[position] = rank;
        if rank != NO_RANK {
            self.keys.push(Reverse(key(rank, position)));
        }
    }

    fn compact(&self, symbols: &mut Vec<TokenId>) {
        let mut n_tokens = 0;
        let mut position = 0;
        while position < symbols.len() {
            symbols[n_tokens] = symbols[position];
            n_tokens += 1;
            position = self.next[position] as usize;
        }
        symbols.truncate(n_tokens);
    }
}

fn key(rank: u32, position: usize) -> u64 {
    (rank as u64) << 32 | position as u64
}
