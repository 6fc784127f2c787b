//! The pairs that compete to be merged next: [`Pairs`] knows their counts, [`Queue`] their order of some time ago.

use super::pairs::{Pair, Pairs};
use super::queue::{Item, Queue};
use super::text::Place;
use super::tokens::Tokens;

/// Holds every pair that occurs at least [`Pairs::threshold`] times and may be merged.
pub struct Candidates {
    pub pairs: Pairs,
    queue: Queue,
    max_token_bytes: usize,
}

impl Candidates {
    pub fn new(threshold: u64, max_token_bytes: usize) -> Self {
        Candidates { pairs: Pairs::new(threshold), queue: Queue::new(), max_token_bytes }
    }

    /// Takes in a new pair, and returns where its places are to be written; none when it is too rare or too long.
    pub fn insert(&mut self, tokens: &Tokens, pair: Pair, count: u64, n_places: u32) -> Option<usize> {
        if count < self.pairs.threshold()
            || tokens.bytes(pair.0).len() + tokens.bytes(pair.1).len() > self.max_token_bytes
        {
            return None;
        }
        self.queue.push(Item::new(tokens, pair, count), tokens);
        Some(self.pairs.insert(pair, count, n_places as usize))
    }

    /// Takes out the pair to merge next; none when no pair is left.
    ///
    /// Counts only fall, so a pair whose noted count is still true is the first of all; one that has fallen goes back
    /// to where it belongs.
    pub fn next(&mut self, tokens: &Tokens) -> Option<Pair> {
        while let Some(&Item { pair, count: noted, .. }) = self.queue.peek(&self.pairs, tokens) {
            let count = self.pairs.count(pair);
            if count == noted {
                self.queue.pop(tokens);
                return Some(pair);
            } else if count >= self.pairs.threshold() {
                self.queue.lower(count, tokens);
            } else {
                self.queue.pop(tokens);
            }
        }
        None
    }

    /// Calls what the next merges will look at into the caches, and returns places of the pair that is likely to come
    /// next.
    pub fn foresee(&self) -> &[Place] {
        let Some((first, others)) = self.queue.upcoming().split_first() else { return &[] };
        others.iter().for_each(|item| self.pairs.foresee(item.pair));
        self.pairs.places(self.pairs.list(first.pair))
    }
}
