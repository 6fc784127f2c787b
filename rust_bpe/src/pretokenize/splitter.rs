//! The pre-tokens of one text, a batch at a time.

use super::user_regex::Pieces;
use super::{Engine, Pattern, check_length, cl100k, gpt2, o200k, whitespace};
use crate::error::Result;

/// Splits one text, whose edges are those of the document. Made by [`Pattern::splitter`].
#[derive(Debug)]
pub struct Splitter<'s> {
    pattern: &'s Pattern,
    engine: Engine,
    text: &'s [u8],
    /// Of a user's expression, which does not find its way from a place alone.
    pieces: Option<Pieces<'s>>,
}

impl<'s> Splitter<'s> {
    pub(super) fn new(pattern: &'s Pattern, engine: Engine, text: &'s [u8]) -> Self {
        let pieces = match pattern {
            Pattern::Regex(regex) => Some(regex.pieces(text)),
            _ => None,
        };
        Self { pattern, engine, text, pieces }
    }

    /// Clears `ends`, then fills it with the end offsets of the pre-tokens that follow `start`: 0 at first, then the last
    /// end that was given.
    ///
    /// At most [`super::PRETOKEN_BATCH`] of them, and none only behind the last. [`crate::Error::PreTokenTooLong`] and, for
    /// a user's expression, [`crate::Error::Text`] have positions in the text.
    pub fn next(&mut self, start: usize, ends: &mut Vec<usize>) -> Result<()> {
        let text = self.text;
        if let Some(pieces) = &mut self.pieces {
            return pieces.next(ends);
        }
        match self.pattern {
            Pattern::Gpt2 => self.engine.fill::<gpt2::Gpt2>(text, start, ends),
            Pattern::Cl100k => self.engine.fill::<cl100k::Cl100k>(text, start, ends),
            Pattern::Llama3 => self.engine.fill::<cl100k::Llama3>(text, start, ends),
            Pattern::O200k => self.engine.fill::<o200k::O200k>(text, start, ends),
            Pattern::Whitespace => self.engine.fill::<whitespace::Whitespace>(text, start, ends),
            Pattern::None | Pattern::Regex(_) => {
                ends.clear();
                if start < text.len() {
                    check_length(start, text.len())?;
                    ends.push(text.len());
                }
                Ok(())
            }
        }
    }
}
