//! The loop: take the most frequent pair, join it wherever it stands, and note what its neighbours have become.

use super::candidates::Candidates;
use super::neighbours::Neighbours;
use super::pairs::Pair;
use super::tally::Tally;
use super::text::{Place, Symbol, Text};
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
    left: Neighbours,
    right: Neighbours,
    changes: Vec<(Pair, u64)>,
}

impl<'w, 'o, S: Symbol> Trainer<'w, 'o, S> {
    pub fn new(text: Text<'w, S>, tokens: Tokens, n_merges: usize, options: &'o TrainOptions) -> Self {
        let mut tally = Tally::of(&text, &tokens);
        // The last of n merges joins between 1/26 (code, 128k) and 1/97 (English, 128k) of total / n pairs. A threshold
        // too low costs little, one too high another tally.
        let total: u64 = tally.iter_mut().map(|slot| slot.count).sum();
        let threshold = total / n_merges.max(1) as u64 / 128;
        let candidates = candidates(&text, &tokens, tally, threshold, options);
        let (left, right) = (Neighbours::new(tokens.len()), Neighbours::new(tokens.len()));
        Trainer { options, text, tokens, candidates, merges: Vec::new(), left, right, changes: Vec::new() }
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
                let tally = Tally::of(&self.text, &self.tokens);
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
        let Trainer { tokens, candidates, left, right, .. } = self;
        let z = tokens.join(x, y);
        self.merges.push((x, y));
        left.add_token();
        right.add_token();
        let list = candidates.pairs.remove((x, y));
        let places = candidates.pairs.places(list);
        let sides = Sides { left, right };
        join(&mut self.text, tokens, (x, y), z, places, sides);

        // What stood as (p, x) is now (p, z), what stood as (y, n) is (z, n). A left neighbour z is this very pair, joined
        // just before: it was noted as (z, x) then, and is (z, z) now.
        let n_twins = left.count(z);
        self.changes.clear();
        left.for_each(|p, sum| self.changes.push(((p, x), if p == z { 0 } else { sum.count })));
        right.for_each(|n, sum| self.changes.push(((y, n), if (y, n) == (x, y) { 0 } else { sum.count })));
        candidates.pairs.subtract(&self.changes);
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

struct Sides<'n> {
    left: &'n mut Neighbours,
    right: &'n mut Neighbours,
}

/// Writes z over (x, y) at those of `places` where the pair still stands, and notes the neighbours there.
fn join<S: Symbol>(text: &mut Text<S>, tokens: &Tokens, (x, y): Pair, z: u32, places: &[Place], sides: Sides) {
    let (x_len, y_len) = (tokens.n_symbols(x), tokens.n_symbols(y));
    let mut fresh = [0; 256];
    for places in places.chunks(fresh.len()) {
        // First a loop without branches, so that many cache misses are under way at once.
        let mut n_fresh = 0;
        for &place in places {
            fresh[n_fresh] = place;
            n_fresh += usize::from(text.stands((x, y), place));
        }
        for &place in &fresh[..n_fresh] {
            if x == y && !text.stands((x, y), place) {
                continue; // in a run, the place before took this one's x
            }
            let (start, end) = (place as usize - x_len, place as usize + y_len);
            let (before, after) = (text.symbols[start - 1], text.symbols[end]);
            text.symbols[start] = S::of(z);
            text.symbols[end - 1] = S::of(z);
            let weight = text.weights.get(start);
            sides.left.add(before, weight, start as Place);
            sides.right.add(after, weight, end as Place);
        }
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
    let kept = tally.iter_mut().filter(|slot| slot.count >= candidates.pairs.threshold());
    candidates.pairs.reserve_places(kept.map(|slot| slot.n_places as usize).sum());
    for slot in tally.iter_mut() {
        slot.cursor = candidates.insert(tokens, slot.pair, slot.count, slot.n_places);
    }
    text.for_each_pair(tokens, |pair, place, _| {
        if let Some(cursor) = &mut tally.slot(pair).cursor {
            candidates.pairs.set_place(*cursor, place);
            *cursor += 1;
        }
    });
    candidates
}
