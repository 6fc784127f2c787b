//! Merging sequences of any length in time n log n: a heap of keys, stale ones dropped when they come up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Ranks;
use super::chain::Chain;
use crate::token::TokenId;

#[derive(Default)]
pub(crate) struct Heap {
    /// Rank and position in one number: the least is the leftmost of the lowest rank.
    keys: BinaryHeap<Reverse<u64>>,
    chain: Chain,
}

impl Heap {
    /// Merges `symbols` in place; there must be fewer than 2^32.
    pub fn merge(&mut self, symbols: &mut Vec<TokenId>, ranks: &impl Ranks) {
        self.chain.start(symbols, ranks);
        // One heap built at once takes linear time, and reuses its buffer.
        let mut keys = std::mem::take(&mut self.keys).into_vec();
        keys.clear();
        keys.extend(self.chain.pairs().map(|(rank, position)| Reverse(key(rank, position))));
        self.keys = BinaryHeap::from(keys);
        while let Some(Reverse(key_of_pair)) = self.keys.pop() {
            let pair = ((key_of_pair >> 32) as u32, key_of_pair as u32 as usize);
            self.chain.join(pair, symbols, ranks, |rank, position| self.keys.push(Reverse(key(rank, position))));
        }
        self.chain.compact(symbols);
    }
}

fn key(rank: u32, position: usize) -> u64 {
    (rank as u64) << 32 | position as u64
}
