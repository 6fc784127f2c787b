//! The loop: take the most frequent pair, join it wherever it stands, and note what its neighbours have become.

use super::candidates::Candidates;
use super::join::{Sides, join};
use super::pairs::Pair;
use super::tally::{Tally, Total};
use super::text::{Symbol, Text};
use super::tokens::Tokens;
use super::{Stop, TrainOptions, Trained};
use crate::error::Result;
use crate::monitor::Monitor;

pub struct Trainer<'w, 'o, S> {
    options: &'o TrainOptions,
    text: Text<'w, S>,
    tokens: Tokens,
    candidates: Candidates,
    merges: Vec<Pair>,
    /// One for each thread.
    sides: Vec<Sides>,
    /// What the current merge takes away from older pairs.
    changes: Vec<(Pair, u64)>,
}

impl<'w, 'o, S: Symbol> Trainer<'w, 'o, S> {
    pub fn new(text: Text<'w, S>, tokens: Tokens, n_merges: usize, options: &'o TrainOptions) -> Self {
        let tally = Tally::of(&text, &tokens, options.threads);
        // The last of n merges joins between 1/26 (code, 128k) and 1/97 (English, 128k) of total / n pairs. A threshold
        // too low costs little, one too high another tally.
        let total: u64 = tally.totals().iter().map(|total| total.count).sum();
        let threshold = total / n_merges.max(1) as u64 / 128;
        let candidates = candidates(&text, &tokens, tally, threshold, options);
        let sides = (0..options.threads.max(1)).map(|_| Sides::default()).collect();
        Trainer { options, text, tokens, candidates, merges: Vec::new(), sides, changes: Vec::new() }
    }

    /// Makes `n_merges` merges, or as many as there are.
    pub fn run(&mut self, n_merges: usize, monitor: &Monitor) -> Result<Stop> {
        const MERGES_PER_REPORT: usize = 64;
        while self.merges.len() < n_merges {
            if let Some(pair) = self.candidates.next(&self.tokens) {
                self.merge(pair);
                if self.merges.len().is_multiple_of(MERGES_PER_REPORT) {
                    monitor.advance(MERGES_PER_REPORT as u64)?;
                }
            } else if self.candidates.pairs.threshold() > self.options.min_frequency.max(1) {
                let tally = Tally::of(&self.text, &self.tokens, self.options.threads);
                let threshold = self.candidates.pairs.threshold() / 4;
                self.candidates = candidates(&self.text, &self.tokens, tally, threshold, self.options);
            } else {
                return Ok(Stop::NoPairs);
            }
        }
        Ok(Stop::Size)
    }

    pub fn finish(self, stop: Stop) -> Trained {
        let encodings = self.text.encodings(&self.tokens);
        Trained { merges: self.merges, stop, encodings }
    }

    /// Joins one pair everywhere.
    fn merge(&mut self, (x, y): Pair) {
        let Trainer { text, tokens, candidates, sides, changes, .. } = self;
        let z = tokens.join(x, y);
        self.merges.push((x, y));
        text.foresee(candidates.foresee());
        let list = candidates.pairs.remove((x, y));
        join(text, tokens, (x, y), z, candidates.pairs.places(list), sides);

        let Sides { left, right } = &mut sides[0];
        // What stood as (p, x) is now (p, z), what stood as (y, n) is (z, n). A left neighbour z is this very pair, joined
        // just before: it was noted as (z, x) then, and is (z, z) now.
        let n_twins = left.count(z);
        changes.clear();
        left.for_each(|p, sum| changes.push(((p, x), if p == z { 0 } else { sum.count })));
        right.for_each(|n, sum| changes.push(((y, n), if (y, n) == (x, y) { 0 } else { sum.count })));
        candidates.pairs.subtract(changes);
        candidates.pairs.reserve_places(left.n_places() + right.n_places());
        left.for_each(|p, sum| {
            if let Some(start) = candidates.insert(tokens, (p, z), sum.count, sum.n_places) {
                sum.keep(start);
            }
        });
        right.for_each(|n, sum| {
            let count = if n == x { sum.count - n_twins } else { sum.count };
            if let Some(start) = candidates.insert(tokens, (z, n), count, sum.n_places) {
                sum.keep(start);
            }
        });
        left.finish(&mut candidates.pairs);
        right.finish(&mut candidates.pairs);
    }
}

/// The pairs of the text as it is now that may be merged and occur at least `threshold` times, or as often as the options
/// ask for.
fn candidates<S: Symbol>(
    text: &Text<S>,
    tokens: &Tokens,
    mut tally: Tally,
    threshold: u64,
    options: &TrainOptions,
) -> Candidates {
    let max_token_bytes = options.max_token_bytes.unwrap_or(usize::MAX);
    let mut candidates = Candidates::new(threshold.max(options.min_frequency).max(1), max_token_bytes);
    let kept: Vec<Total> =
        tally.totals().into_iter().filter(|total| total.count >= candidates.pairs.threshold()).collect();
    candidates.pairs.reserve_places(kept.iter().map(|total| total.n_places as usize).sum());
    for Total { pair, count, n_places } in kept {
        if let Some(start) = candidates.insert(tokens, pair, count, n_places) {
            tally.keep(pair, start);
        }
    }
    candidates.pairs.write_places(|places| tally.write_places(text, tokens, places));
    candidates
}
