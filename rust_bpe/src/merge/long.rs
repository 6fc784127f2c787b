//! Merging very long sequences in linear time: pieces are merged alone and joined where they meet.
//!
//! See the parent module for why a join is exact. Where the tokens at a border do not stay apart, a few tokens on both
//! sides are merged again as one stretch, twice as many each time, until its own borders hold. What a border disturbs
//! is nearly always a few tokens; the doubling keeps the rest (a run of one character is cut anew up to its end)
//! within a constant factor.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::{Merger, Ranks};
use crate::token::TokenId;

/// The sequence before its first merge, and how long its tokens are.
pub(crate) trait Symbols {
    fn len(&self) -> usize;

    /// Replaces `out` by the symbols of a range.
    fn copy(&self, range: Range<usize>, out: &mut Vec<TokenId>);

    /// How many symbols a token consists of.
    fn n_symbols(&self, token: TokenId) -> usize;
}

/// A piece is this long, or a few times the last token where that is more: the pieces must outgrow their borders.
const PIECE: usize = 256;
const TOKENS_IN_A_PIECE: usize = 8;

/// Tokens longer than a piece come from a vocabulary that was trained on such runs. There the longest token counts, for a
/// border may disturb all of it; up to this length, which bounds the memory of a heap.
const LONGEST_PIECE: usize = 1 << 20;

/// Pairs of tokens whose border was judged; beyond so many they are forgotten. 1 MiB.
const MOST_JUDGED: usize = 1 << 16;

/// Buffers of a join.
#[derive(Default)]
pub(crate) struct Long {
    right: Vec<TokenId>,
    middle: Vec<TokenId>,
    border: Vec<TokenId>,
    /// Whether two tokens stay apart. Both may be as long as the text, and a run meets the same few again and again.
    judged: FxHashMap<(TokenId, TokenId), bool>,
}

impl Long {
    /// Appends the tokens of `symbols` to `out`.
    pub fn merge(&mut self, symbols: &impl Symbols, ranks: &impl Ranks, merger: &mut Merger, out: &mut Vec<TokenId>) {
        let first = out.len();
        let (mut done, mut longest) = (0, 0);
        self.judged.clear();
        while done < symbols.len() {
            let last_token = out[first..].last().map_or(0, |&token| symbols.n_symbols(token));
            let token = if longest > PIECE { longest.min(LONGEST_PIECE) } else { last_token };
            let end = symbols.len().min(done + PIECE.max(token * TOKENS_IN_A_PIECE));
            symbols.copy(done..end, &mut self.right);
            merger.merge(&mut self.right, ranks);
            self.join(first, done, symbols, ranks, merger, out);
            done = end;
            longest = longest.max(self.longest(symbols));
        }
    }

    /// The length of the longest token that the last join brought.
    fn longest(&self, symbols: &impl Symbols) -> usize {
        self.middle.iter().chain(&self.right).map(|&token| symbols.n_symbols(token)).max().unwrap_or(0)
    }

    /// Appends `self.right`, the tokens from symbol `border` on, to the tokens before it, `out[first..]`.
    fn join(
        &mut self,
        first: usize,
        border: usize,
        symbols: &impl Symbols,
        ranks: &impl Ranks,
        merger: &mut Merger,
        out: &mut Vec<TokenId>,
    ) {
        let n_symbols = |tokens: &[TokenId]| tokens.iter().map(|&token| symbols.n_symbols(token)).sum::<usize>();
        let n_left = out.len() - first;
        // How many tokens left and right of the border are merged again.
        let (mut take_left, mut take_right) = (0, 0);
        let (mut start, mut end) = (border, border);
        self.middle.clear();
        loop {
            let rest = &self.right[take_right..];
            let before = out[first..out.len() - take_left].last().copied();
            let after = rest.first().copied();
            let begins = self.middle.first().copied().or(after);
            let ends = self.middle.last().copied().or(before);
            let left_holds = self.holds(before, begins, start, symbols, ranks, merger);
            let right_holds = self.holds(ends, after, end, symbols, ranks, merger);
            if left_holds && right_holds {
                out.truncate(out.len() - take_left);
                out.extend_from_slice(&self.middle);
                out.extend_from_slice(&self.right[take_right..]);
                return;
            }
            if !left_holds {
                let more = n_left.min(take_left * 2 + 2) - take_left;
                let tokens = &out[out.len() - take_left - more..out.len() - take_left];
                start -= n_symbols(tokens);
                take_left += more;
            }
            if !right_holds {
                let more = self.right.len().min(take_right * 2 + 2) - take_right;
                end += n_symbols(&self.right[take_right..take_right + more]);
                take_right += more;
            }
            symbols.copy(start..end, &mut self.middle);
            merger.merge(&mut self.middle, ranks);
        }
    }

    /// Whether two tokens that meet at symbol `border` stay as they are when merged alone; an edge always holds.
    fn holds(
        &mut self,
        left: Option<TokenId>,
        right: Option<TokenId>,
        border: usize,
        symbols: &impl Symbols,
        ranks: &impl Ranks,
        merger: &mut Merger,
    ) -> bool {
        let (Some(left), Some(right)) = (left, right) else { return true };
        if ranks.rank(left, right) != super::NO_RANK {
            return false;
        }
        if let Some(&holds) = self.judged.get(&(left, right)) {
            return holds;
        }
        symbols.copy(border - symbols.n_symbols(left)..border + symbols.n_symbols(right), &mut self.border);
        merger.merge(&mut self.border, ranks);
        let holds = self.border == [left, right];
        if self.judged.len() == MOST_JUDGED {
            self.judged.clear();
        }
        self.judged.insert((left, right), holds);
        holds
    }
}
