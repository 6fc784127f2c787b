//! Merging the longest sequences in nearly linear time, rank by rank, where a merge makes parts of later merges alone.
//!
//! That holds for every vocabulary that training makes. Then all pairs of a rank are known when its turn comes, and are
//! merged from left to right in one sweep; a heap of millions would miss the caches at every step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::Ranks;
use super::chain::Chain;
use crate::token::TokenId;

#[derive(Default)]
pub(super) struct Buckets {
    chain: Chain,
    waiting: Waiting,
}

impl Buckets {
    /// Merges `symbols` in place; there must be fewer than 2^32, and ranks in order.
    pub fn merge(&mut self, symbols: &mut Vec<TokenId>, ranks: &impl Ranks) {
        self.chain.start(symbols, ranks);
        for (rank, position) in self.chain.pairs() {
            self.waiting.put(rank, position);
        }
        while let Some((rank, mut positions)) = self.waiting.take_least() {
            positions.sort_unstable(); // they come as a few rows that are sorted
            for &at in &positions {
                let pair = (rank, at as usize);
                self.chain.join(pair, symbols, ranks, |rank, position| self.waiting.put(rank, position));
            }
            self.waiting.spare.push(positions);
        }
        self.chain.compact(symbols);
    }
}

/// Positions of pairs by their ranks.
#[derive(Default)]
struct Waiting {
    ranks: BinaryHeap<Reverse<u32>>,
    positions: FxHashMap<u32, Vec<u32>>,
    spare: Vec<Vec<u32>>,
}

impl Waiting {
    fn put(&mut self, rank: u32, position: usize) {
        match self.positions.entry(rank) {
            Entry::Occupied(positions) => positions.into_mut().push(position as u32),
            Entry::Vacant(place) => {
                self.ranks.push(Reverse(rank));
                let mut positions = self.spare.pop().unwrap_or_default();
                positions.clear();
                positions.push(position as u32);
                place.insert(positions);
            }
        }
    }

    fn take_least(&mut self) -> Option<(u32, Vec<u32>)> {
        let Reverse(rank) = self.ranks.pop()?;
        self.positions.remove(&rank).map(|positions| (rank, positions))
    }
}
