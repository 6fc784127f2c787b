//! Merging very long sequences in linear time: piece by piece, each with the last tokens before it.
//!
//! See the parent module for why a join is exact. Where the tokens at the border of such a stretch do not stay apart, it
//! begins earlier, by twice as many tokens each time, until its border holds. What a border disturbs is nearly always a
//! few tokens; the doubling keeps the rest (a run of one character is cut anew up to its end) within a constant factor. The
//! next piece begins with as many tokens as the last one needed: spaces need six with cl100k, where two took another round.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::{Merger, Ranks};
use crate::token::{Id, TokenId};

/// The sequence before its first merge, and how long its tokens are.
pub(crate) trait Symbols {
    fn len(&self) -> usize;

    /// Replaces `out` by the symbols of a range.
    fn copy(&self, range: Range<usize>, out: &mut Vec<TokenId>);

    /// How many symbols a token consists of.
    fn n_symbols(&self, token: TokenId) -> usize;
}

/// A piece and the tokens before it are this long, or a few times the last token where that is more: the pieces must outgrow
/// their borders. Eight of the longest tokens that were published are what [`super::scan`] takes.
const PIECE: usize = 256;
const TOKENS_IN_A_PIECE: usize = 8;

/// Tokens longer than a piece come from a vocabulary that was trained on such runs. There the longest token counts, for a
/// border may disturb all of it; up to this length of a piece, which bounds its memory, or the last token's.
const LONGEST_PIECE: usize = 8 << 20;

/// At least so many tokens before a piece are merged again with it: one that the text was cut in, and one beside it.
const MERGED_AGAIN: usize = 2;

/// Pairs of tokens whose border was judged; beyond so many they are forgotten. 1 MiB.
const MOST_JUDGED: usize = 1 << 16;

/// What a join needs to know, and its buffers.
#[derive(Default)]
pub(crate) struct Long {
    /// Where the tokens of the text begin in the output.
    first: usize,
    /// How many tokens before a piece are merged again with it at first.
    again: usize,
    stretch: Vec<TokenId>,
    border: Vec<TokenId>,
    /// Whether two tokens stay apart. Both may be as long as the text, and a run meets the same few again and again.
    judged: FxHashMap<(TokenId, TokenId), bool>,
}

impl Long {
    /// Appends the tokens of `symbols` to `out`.
    pub fn merge<T: Id>(&mut self, symbols: &impl Symbols, ranks: &impl Ranks, merger: &mut Merger, out: &mut Vec<T>) {
        let (mut done, mut longest) = (0, 0);
        self.judged.clear();
        (self.first, self.again) = (out.len(), MERGED_AGAIN);
        while done < symbols.len() {
            let last_token = out[self.first..].last().map_or(0, |token| symbols.n_symbols(token.to_id()));
            let token = if longest > PIECE { longest } else { last_token };
            let length = (token * TOKENS_IN_A_PIECE).clamp(PIECE, LONGEST_PIECE.max(2 * last_token));
            done = self.join(done, length, symbols, ranks, merger, out);
            longest = self.stretch.iter().map(|&token| symbols.n_symbols(token)).fold(longest, usize::max);
        }
    }

    /// Puts the tokens of a piece that begins at `border` behind those of the text before it. Of these the last are merged
    /// again with it: `self.again` of them, unless they take half of `length`, or as many as it needs. Returns where the piece
    /// ends: where the two have `length`, or later, so that half of that is new.
    fn join<T: Id>(
        &mut self,
        border: usize,
        length: usize,
        symbols: &impl Symbols,
        ranks: &impl Ranks,
        merger: &mut Merger,
        out: &mut Vec<T>,
    ) -> usize {
        let (mut keep, mut start, mut end) = (out.len(), border, None);
        let (mut wanted, mut longest) = (self.again, length / 2);
        let end = loop {
            while keep > self.first && out.len() - keep < wanted && border - start <= longest {
                keep -= 1;
                start -= symbols.n_symbols(out[keep].to_id());
            }
            let end = *end.get_or_insert(symbols.len().min((start + length).max(border + length / 2)));
            symbols.copy(start..end, &mut self.stretch);
            merger.merge(&mut self.stretch, ranks);
            let begins = self.stretch[0]; // a piece has a symbol
            if keep == self.first || self.holds(out[keep - 1].to_id(), begins, start, symbols, ranks, merger) {
                break end;
            }
            (wanted, longest) = (2 * (out.len() - keep) + 2, usize::MAX);
        };
        let needed = out.len() - keep;
        self.again = if needed > self.again { needed } else { MERGED_AGAIN.max(self.again - 1) };
        out.truncate(keep);
        out.extend(self.stretch.iter().map(|&token| T::from_id(token)));
        end
    }

    /// Whether two tokens that meet at symbol `border` stay as they are when merged alone.
    fn holds(
        &mut self,
        left: TokenId,
        right: TokenId,
        border: usize,
        symbols: &impl Symbols,
        ranks: &impl Ranks,
        merger: &mut Merger,
    ) -> bool {
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
