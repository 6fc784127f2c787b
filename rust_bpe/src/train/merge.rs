//! The loop: take the most frequent pair, join it wherever it stands, and note what its neighbours have become.

use rustc_hash::FxHashMap;

use super::pairs::{Pair, Pairs};
use super::queue::{Item, Queue};
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
    /// Every pair that occurs at least so often is in `pairs` and `queue`.
    threshold: u64,
    min_frequency: u64,
    max_token_bytes: usize,
    left: Neighbours,
    right: Neighbours,
}

impl<'w> Trainer<'w> {
    pub fn new(text: Text<'w>, tokens: Tokens, n_merges: usize, options: &TrainOptions) -> Self {
        let (left, right) = (Neighbours::new(tokens.len()), Neighbours::new(tokens.len()));
        let min_frequency = options.min_frequency.max(1);
        let mut trainer = Trainer {
            text,
            tokens,
            pairs: Pairs::default(),
            queue: Queue::default(),
            merges: Vec::new(),
            threshold: 0,
            min_frequency,
            max_token_bytes: options.max_token_bytes.unwrap_or(usize::MAX),
            left,
            right,
        };
        let threshold = trainer.first_threshold(n_merges);
        trainer.collect_pairs(threshold);
        trainer
    }

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
            let Some(top) = self.queue.peek().filter(|top| top.count >= self.threshold) else {
                if self.threshold == self.min_frequency {
                    return None;
                }
                self.collect_pairs((self.threshold / 16).max(self.min_frequency));
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
        self.left.sums.push(Sum::ZERO);
        self.right.sums.push(Sum::ZERO);
        let (x_len, y_len) = (self.tokens.n_symbols(x) as usize, self.tokens.n_symbols(y) as usize);
        let mut twins = 0;
        let mut twin_places = Vec::new();
        for place in places {
            let boundary = place.boundary as usize;
            if self.text.symbols[boundary - 1] != x || self.text.symbols[boundary] != y {
                continue;
            }
            let (start, end) = (boundary - x_len, boundary + y_len);
            let (before, after) = (self.text.symbols[start - 1], self.text.symbols[end]);
            self.text.symbols[start] = z;
            self.text.symbols[end - 1] = z;
            let weight = self.text.weight(place);
            if before == z {
                // The left neighbour is this very pair, just joined: it took this place's x for its right neighbour.
                twins += weight;
                twin_places.push(place.moved(start));
            } else if before != EDGE {
                self.left.add(before, weight, place.moved(start));
            }
            if after != EDGE {
                self.right.add(after, weight, place.moved(end));
            }
        }
        self.note_left(x, z);
        self.note_right((x, y), z, twins);
        if self.is_allowed(z, z) && twins >= self.threshold {
            let index = self.pairs.insert((z, z), twins, 0);
            self.pairs.get_mut(index).places = twin_places;
            self.queue.push(Item::new(&self.tokens, (z, z), index, twins), &self.tokens);
        }
    }

    /// Every pair (p, x) before a joined place has become (p, z).
    fn note_left(&mut self, x: u32, z: u32) {
        for i in 0..self.left.tokens.len() {
            let p = self.left.tokens[i];
            let count = self.left.sums[p as usize].count;
            self.pairs.subtract((p, x), count);
            self.note(true, (p, z), count, p);
        }
        self.left.spread(&mut self.pairs);
    }

    /// Every pair (y, n) behind a joined place has become (z, n), except that n = x has become z itself `twins` times.
    fn note_right(&mut self, (x, y): Pair, z: u32, twins: u64) {
        for i in 0..self.right.tokens.len() {
            let n = self.right.tokens[i];
            let count = self.right.sums[n as usize].count;
            if (y, n) != (x, y) {
                self.pairs.subtract((y, n), count);
            }
            let count = if n == x { count - twins } else { count };
            self.note(false, (z, n), count, n);
        }
        self.right.spread(&mut self.pairs);
    }

    fn note(&mut self, is_left: bool, pair: Pair, count: u64, neighbour: u32) {
        if count < self.threshold || !self.is_allowed(pair.0, pair.1) {
            return;
        }
        let side = if is_left { &mut self.left } else { &mut self.right };
        let sum = &mut side.sums[neighbour as usize];
        let index = self.pairs.insert(pair, count, sum.n_places as usize);
        sum.index = index;
        self.queue.push(Item::new(&self.tokens, pair, index, count), &self.tokens);
    }

    fn is_allowed(&self, left: u32, right: u32) -> bool {
        self.tokens.bytes(left).len() + self.tokens.bytes(right).len() <= self.max_token_bytes
    }

    /// Counts all pairs of the text as it is now, and keeps those that occur at least `threshold` times.
    fn collect_pairs(&mut self, threshold: u64) {
        self.threshold = threshold;
        self.pairs.clear();
        self.queue.clear();
        let mut counts: FxHashMap<Pair, (u64, u32)> = FxHashMap::default();
        self.text.for_each_pair(&self.tokens, |x, y, place| {
            let (count, n_places) = counts.entry((x, y)).or_default();
            *count += self.text.weight(place);
            *n_places += 1;
        });
        let mut index_of: FxHashMap<Pair, u32> = FxHashMap::default();
        for (&pair, &(count, n_places)) in &counts {
            if count >= threshold && self.is_allowed(pair.0, pair.1) {
                let index = self.pairs.insert(pair, count, n_places as usize);
                index_of.insert(pair, index);
                self.queue.push(Item::new(&self.tokens, pair, index, count), &self.tokens);
            }
        }
        let pairs = &mut self.pairs;
        self.text.for_each_pair(&self.tokens, |x, y, place| {
            if let Some(&index) = index_of.get(&(x, y)) {
                pairs.get_mut(index).places.push(place);
            }
        });
    }

    /// A guess at the count of the last pair that will be merged, better too low than too high.
    fn first_threshold(&self, n_merges: usize) -> u64 {
        let mut total = 0;
        self.text.for_each_pair(&self.tokens, |_, _, place| total += self.text.weight(place));
        (total / (64 * n_merges.max(1) as u64)).max(self.min_frequency)
    }
}

/// What stands on one side of the places of one merge: sums by token, in in an array over all tokens so far
/// that is clean between merges.
struct Neighbours {
    sums: Vec<Sum>,
    /// The tokens met, in order.
    tokens: Vec<u32>,
    places: Vec<(u32, Place)>,
}

#[derive(Clone, Copy)]
struct Sum {
    count: u64,
    n_places: u32,
    /// The new pair's number; [`Sum::NOT_KEPT`] when it is too rare.
    index: u32,
}

impl Sum {
    const NOT_KEPT: u32 = u32::MAX;
    const ZERO: Sum = Sum { count: 0, n_places: 0, index: Sum::NOT_KEPT };
}

impl Neighbours {
    fn new(n_tokens: usize) -> Self {
        Neighbours { sums: vec![Sum::ZERO; n_tokens], tokens: Vec::new(), places: Vec::new() }
    }

    fn add(&mut self, token: u32, weight: u64, place: Place) {
        let sum = &mut self.sums[token as usize];
        if sum.n_places == 0 {
            self.tokens.push(token);
        }
        sum.count += weight;
        sum.n_places += 1;
        self.places.push((token, place));
    }

    /// Hands the places to the new pairs that are kept, and is clean again.
    fn spread(&mut self, pairs: &mut Pairs) {
        for &(token, place) in &self.places {
            let index = self.sums[token as usize].index;
            if index != Sum::NOT_KEPT {
                pairs.get_mut(index).places.push(place);
            }
        }
        for &token in &self.tokens {
            self.sums[token as usize] = Sum::ZERO;
        }
        self.tokens.clear();
        self.places.clear();
    }
}
