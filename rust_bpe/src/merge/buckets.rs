//! Merging the longest sequences in nearly linear time, rank by rank, where a merge makes parts of later merges alone.
//!
//! That holds for every vocabulary that training makes. Then all pairs of a rank are known when its turn comes, and are
//! merged from left to right in one sweep; a heap of millions would miss the caches at every step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

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
        while let Some((rank, list, mut positions)) = self.waiting.take_least() {
            positions.sort_unstable(); // they come as a few rows that are sorted
            for &at in &positions {
                let pair = (rank, at as usize);
                self.chain.join(pair, symbols, ranks, |rank, position| self.waiting.put(rank, position));
            }
            self.waiting.give_back(list, positions);
        }
        self.chain.compact(symbols);
    }
}

/// Positions of pairs by their ranks.
#[derive(Default)]
struct Waiting {
    ranks: BinaryHeap<Reverse<u32>>,
    /// The list of a rank.
    list_of: FxHashMap<u32, usize>,
    lists: Vec<Vec<u32>>,
    empty: Vec<usize>,
    /// The rank that came last and its list: in a run the same comes millions of times.
    last: Option<(u32, usize)>,
}

impl Waiting {
    #[inline]
    fn put(&mut self, rank: u32, position: usize) {
        let list = match self.last {
            Some((last, list)) if last == rank => list,
            _ => self.find(rank),
        };
        self.lists[list].push(position as u32);
    }

    fn find(&mut self, rank: u32) -> usize {
        let list = *self.list_of.entry(rank).or_insert_with(|| {
            self.ranks.push(Reverse(rank));
            self.empty.pop().unwrap_or_else(|| {
                self.lists.push(Vec::new());
                self.lists.len() - 1
            })
        });
        self.last = Some((rank, list));
        list
    }

    /// The least rank and its positions, which [`Waiting::give_back`] wants again.
    fn take_least(&mut self) -> Option<(u32, usize, Vec<u32>)> {
        let Reverse(rank) = self.ranks.pop()?;
        let list = self.list_of.remove(&rank)?;
        self.last = None;
        Some((rank, list, std::mem::take(&mut self.lists[list])))
    }

    fn give_back(&mut self, list: usize, mut positions: Vec<u32>) {
        positions.clear();
        self.lists[list] = positions;
        self.empty.push(list);
    }
}
