//! The pairs that may still be merged: how often each occurs, and where.
//!
//! A pair of neighbours (x, y) can appear only at the merge that makes the newer of x and y; from then on merges only
//! take occurrences away. So a pair's list of places is written once, in the order of the text, and some of its
//! places have gone stale when it is read; its count is always exact. And a pair that occurs less than `threshold`
//! times when it appears can be left out until the threshold is lowered below its count.

use rustc_hash::FxHashMap;

use super::text::Place;

/// A pair of tokens, left and right.
pub type Pair = (u32, u32);

/// Pairs by number, in the order they appeared.
#[derive(Default)]
pub struct Pairs {
    index_of: FxHashMap<u64, u32>,
    entries: Vec<Entry>,
}

pub struct Entry {
    pub pair: Pair,
    /// Occurrences now, weighted.
    pub count: u64,
    /// Where it stood when it appeared, ascending.
    pub places: Vec<Place>,
}

impl Pairs {
    pub fn insert(&mut self, pair: Pair, count: u64, n_places: usize) -> u32 {
        let index = self.entries.len() as u32;
        self.index_of.insert(key(pair), index);
        self.entries.push(Entry { pair, count, places: Vec::with_capacity(n_places) });
        index
    }

    /// Takes occurrences away from a pair, if it is one of those kept here.
    pub fn subtract(&mut self, pair: Pair, count: u64) {
        if let Some(&index) = self.index_of.get(&key(pair)) {
            self.entries[index as usize].count -= count;
        }
    }

    pub fn get(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    pub fn get_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }
}

fn key((left, right): Pair) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}
