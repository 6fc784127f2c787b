//! The loop: take the most frequent pair, join it wherever it stands, and note what its neighbours have become.

use super::neighbours::Neighbours;
use super::pairs::{Pair, Pairs};
use super::queue::{Item, Queue};
use super::tally::Tally;
use super::text::{EDGE, Place, Text};
use super::tokens::Tokens;
use super::{Stop, TrainOptions, Trained};
use crate::error::Result;
use crate::monitor::Monitor;

pub struct Trainer<'w> {
    text: Text<'w>,
    tokens: Tokens,
    pairs: Pairs,
    queue: Queue,
    merges: Vec<Pair>,
    /// Every pair that occurs at least so often, and may be merged, is in `pairs` and `queue`.
    threshold: u64,
    min_frequency: u64,
    max_token_bytes: usize,
    left: Neighbours,
    right: Neighbours,
}

impl<'w> Trainer<'w> {
    pub fn new(text: Text<'w>, tokens: Tokens, n_merges: usize, options: &TrainOptions) -> Self {
        let (left, right) = (Neighbours::new(tokens.len()), Neighbours::new(tokens.len()));
        let mut trainer = Trainer {
            text,
            tokens,
            pairs: Pairs::default(),
            queue: Queue::default(),
            merges: Vec::new(),
            threshold: u64::MAX,
            min_frequency: options.min_frequency.max(1),
            max_token_bytes: options.max_token_bytes.unwrap_or(usize::MAX),
            left,
            right,
        };
        let mut tally = Tally::of(&trainer.text, &trainer.tokens);
        let total: u64 = tally.iter_mut().map(|slot| slot.count).sum();
        // The last of n merges joined between 1/26 (code, 128k) and 1/97 (English, 128k) of total / n pairs. Too low costs
        // little, too high a second tally.
        let threshold = total / n_merges.max(1) as u64 / 128;
        trainer.collect_pairs(tally, threshold);
        trainer
    }

    /// Makes `n_merges` merges, or as many as there are.
    pub fn run(&mut self, n_merges: usize, monitor: &Monitor) -> Result<Stop> {
        const MERGES_PER_REPORT: usize = 64;
        while self.merges.len() < n_merges {
            let Some(index) = self.next_pair() else { return Ok(Stop::NoPairs) };
            self.merge(index);
            if self.merges.len().is_multiple_of(MERGES_PER_REPORT) {
                monitor.advance(MERGES_PER_REPORT as u64)?;
            }
        }
        Ok(Stop::Size)
    }

    pub fn finish(self, stop: Stop) -> Trained {
        let encodings = self.text.encodings(&self.tokens);
        Trained { merges: self.merges, stop, encodings }
    }

    /// The pair to merge now; none when all that is left is too rare or too long.
    fn next_pair(&mut self) -> Option<u32> {
        loop {
            let Some(top) = self.queue.peek() else {
                if self.threshold == self.min_frequency {
                    return None;
                }
                let tally = Tally::of(&self.text, &self.tokens);
                self.collect_pairs(tally, self.threshold / 4);
                continue;
            };
            let (index, noted) = (top.index, top.count);
            let count = self.pairs.get(index).count;
            if count == noted {
                self.queue.pop(&self.tokens);
                return Some(index);
            } else if count >= self.threshold {
                self.queue.lower(count, &self.tokens);
            } else {
                self.queue.pop(&self.tokens);
            }
        }
    }

    /// Joins one pair everywhere.
    fn merge(&mut self, index: u32) {
        let entry = self.pairs.get_mut(index);
        let (x, y) = entry.pair;
        let places = std::mem::take(&mut entry.places);
        let z = self.tokens.join(x, y);
        self.merges.push((x, y));
        self.left.add_token();
        self.right.add_token();
        self.join((x, y), z, &places);

        // A left neighbour z is this very pair, joined just before: its x became z, when it had been noted as (z, x).
        let n_twins = self.left.count(z);
        for i in 0..self.left.tokens().len() {
            let p = self.left.tokens()[i];
            if p != EDGE {
                let count = self.left.count(p);
                if p != z {
                    self.pairs.subtract((p, x), count);
                }
                if let Some(index) = self.insert((p, z), count, self.left.n_places(p)) {
                    self.left.keep(p, index);
                }
            }
        }
        for i in 0..self.right.tokens().len() {
            let n = self.right.tokens()[i];
            if n != EDGE {
                let count = self.right.count(n);
                if (y, n) != (x, y) {
                    self.pairs.subtract((y, n), count);
                }
                let count = if n == x { count - n_twins } else { count };
                if let Some(index) = self.insert((z, n), count, self.right.n_places(n)) {
                    self.right.keep(n, index);
                }
            }
        }
        self.left.finish(&mut self.pairs);
        self.right.finish(&mut self.pairs);
    }

    /// Writes z over (x, y) at those of `places` where the pair still stands, and notes the neighbours there.
    fn join(&mut self, (x, y): Pair, z: u32, places: &[Place]) {
        let (x_len, y_len) = (self.tokens.n_symbols(x) as usize, self.tokens.n_symbols(y) as usize);
        let mut fresh = [Place::default(); 256];
        for places in places.chunks(fresh.len()) {
            // First a loop without branches, so that many cache misses are under way at once.
            let mut n_fresh = 0;
            for &place in places {
                fresh[n_fresh] = place;
                n_fresh += usize::from(self.text.stands((x, y), place));
            }
            for &place in &fresh[..n_fresh] {
                if x == y && !self.text.stands((x, y), place) {
                    continue; // in a run, the place before took this one's x
                }
                let boundary = place.boundary as usize;
                let (start, end) = (boundary - x_len, boundary + y_len);
                let symbols = &mut self.text.symbols;
                let (before, after) = (symbols[start - 1], symbols[end]);
                symbols[start] = z;
                symbols[end - 1] = z;
                let weight = self.text.weight(place);
                self.left.add(before, weight, place.moved(start));
                self.right.add(after, weight, place.moved(end));
            }
        }
    }

    /// Keeps a new pair if it may be merged, and returns its number.
    fn insert(&mut self, pair: Pair, count: u64, n_places: usize) -> Option<u32> {
        if count < self.threshold {
            return None;
        }
        if self.tokens.bytes(pair.0).len() + self.tokens.bytes(pair.1).len() > self.max_token_bytes {
            return None;
        }
        let index = self.pairs.insert(pair, count, n_places);
        self.queue.push(Item::new(&self.tokens, pair, index, count), &self.tokens);
        Some(index)
    }

    /// Starts again with the pairs of the text as it is now that occur at least `threshold` times.
    fn collect_pairs(&mut self, mut tally: Tally, threshold: u64) {
        const NOT_KEPT: u32 = u32::MAX;
        self.threshold = threshold.max(self.min_frequency);
        self.pairs = Pairs::default();
        self.queue = Queue::default();
        for slot in tally.iter_mut() {
            slot.index = self.insert(slot.pair, slot.count, slot.n_places as usize).unwrap_or(NOT_KEPT);
        }
        let pairs = &mut self.pairs;
        self.text.for_each_pair(&self.tokens, |x, y, place| {
            let index = tally.slot((x, y)).index;
            if index != NOT_KEPT {
                pairs.get_mut(index).places.push(place);
            }
        });
    }
}
