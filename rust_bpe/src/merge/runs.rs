//! Merging sequences that are a few runs of one symbol each, as lines of dashes and indentation are: rank by rank, all pairs
//! of a run at once.
//!
//! Where the merges are in order (see [`super::buckets`]), all pairs of the lowest rank are merged, the leftmost first,
//! before a pair of another rank. In a run of n symbols that are a pair with each other that makes n / 2 tokens, and one
//! symbol stays behind them where n is odd.

use super::{NO_RANK, Ranks};
use crate::token::TokenId;

/// A sequence is merged in this way if its runs have so many symbols on average, and if there are not more of them.
const SHORT_RUN: usize = 8;
const MOST_RUNS: usize = 128; // all are looked through for each rank

/// The runs of a sequence: what, and how often.
#[derive(Default)]
pub(super) struct Runs {
    runs: Vec<(TokenId, usize)>,
    merged: Vec<(TokenId, usize)>,
}

impl Runs {
    /// Merges `symbols` in place where they are long runs; false, and nothing, where they are not. Ranks must be in order.
    pub fn merge(&mut self, symbols: &mut Vec<TokenId>, ranks: &impl Ranks) -> bool {
        self.runs.clear();
        for &symbol in symbols.iter() {
            push(&mut self.runs, symbol, 1);
            if self.runs.len() > MOST_RUNS.min(symbols.len() / SHORT_RUN) {
                return false;
            }
        }
        while let Some((left, right, rank)) = self.least(ranks) {
            let result = ranks.result(rank);
            self.merged.clear();
            for &(token, count) in &self.runs {
                if left == right && token == left {
                    push(&mut self.merged, result, count / 2);
                    push(&mut self.merged, token, count % 2);
                } else if token == right && self.merged.last().is_some_and(|&(last, _)| last == left) {
                    pop(&mut self.merged);
                    push(&mut self.merged, result, 1);
                    push(&mut self.merged, token, count - 1);
                } else {
                    push(&mut self.merged, token, count);
                }
            }
            std::mem::swap(&mut self.runs, &mut self.merged);
        }
        symbols.clear();
        self.runs.iter().for_each(|&(token, count)| symbols.extend(std::iter::repeat_n(token, count)));
        true
    }

    /// The pair of the lowest rank.
    fn least(&self, ranks: &impl Ranks) -> Option<(TokenId, TokenId, u32)> {
        let within = self.runs.iter().filter(|run| run.1 > 1).map(|run| (run.0, run.0));
        let between = self.runs.windows(2).map(|pair| (pair[0].0, pair[1].0));
        let ranked = within.chain(between).map(|(left, right)| (left, right, ranks.rank(left, right)));
        ranked.min_by_key(|pair| pair.2).filter(|pair| pair.2 != NO_RANK)
    }
}

/// Appends so many times a token.
fn push(runs: &mut Vec<(TokenId, usize)>, token: TokenId, count: usize) {
    match runs.last_mut() {
        _ if count == 0 => {}
        Some(last) if last.0 == token => last.1 += count,
        _ => runs.push((token, count)),
    }
}

/// Takes the last token away.
fn pop(runs: &mut Vec<(TokenId, usize)>) {
    if let Some(last) = runs.last_mut() {
        last.1 -= 1;
        if last.1 == 0 {
            runs.pop();
        }
    }
}
