//! All words in one flat array of symbols, in which a merge costs two stores and neighbours are found by position.
//!
//! A token writes its number at its first and at its last place; what stands between is never read. So the left
//! neighbour's number stands just before a token, and the token's length leads to the right neighbour's: no linked
//! list, no rebuilt words.
//!
//! A boundary at position b lies between the tokens that end at b - 1 and begin at b. A pair once noted at b still stands
//! there exactly when these two places hold its two tokens: a merge on either side rewrites one of the two places, and
//! the merge that swallows b is that of the very pair, which comes once.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::pairs::Pair;
use super::tokens::{self, Tokens};
use super::weights::Weights;
use super::{Alphabet, Encodings};
use crate::error::{Error, Result};
use crate::memory;
use crate::words::Words;

/// A token as the array stores it, as its number plus 1: in 16 bits where they suffice, for half the memory that a
/// merge walks over.
pub trait Symbol: Copy + Eq + Send + Sync {
    /// Stands before, between and behind words: no token.
    const EDGE: Self;

    /// The most tokens that can be told apart.
    const MAX_TOKENS: usize;

    fn of(token: u32) -> Self;

    /// The token's number plus 1; 0 for [`Symbol::EDGE`].
    fn number(self) -> u32;

    /// The token, which this is, not an edge.
    fn token(self) -> u32 {
        self.number() - 1
    }
}

impl Symbol for u16 {
    const EDGE: u16 = 0;
    const MAX_TOKENS: usize = u16::MAX as usize;

    #[inline(always)]
    fn of(token: u32) -> u16 {
        token as u16 + 1
    }

    #[inline(always)]
    fn number(self) -> u32 {
        self.into()
    }
}

impl Symbol for u32 {
    const EDGE: u32 = 0;
    const MAX_TOKENS: usize = u32::MAX as usize;

    #[inline(always)]
    fn of(token: u32) -> u32 {
        token + 1
    }

    #[inline(always)]
    fn number(self) -> u32 {
        self
    }
}

/// A boundary between two tokens: the position behind it.
pub type Place = u32;

/// The words in their order, each between two edges.
pub struct Text<'w, S> {
    pub symbols: Vec<S>,
    pub weights: Weights,
    words: &'w Words,
}

impl<'w, S: Symbol> Text<'w, S> {
    /// Spells the words. Errors as [`super::train`].
    pub fn new(words: &'w Words, alphabet: &Alphabet) -> Result<Self> {
        let size = words.n_bytes() + words.len() + 1;
        if size > Place::MAX as usize {
            return Err(Error::Setting(format!(
                "{} distinct words hold {} bytes, which is more than training can number (4 GiB, one byte for each word \
                 included): train on less text, or choose a --pattern that splits it into shorter words",
                words.len(),
                words.n_bytes()
            )));
        }
        let symbol_of: FxHashMap<char, S> = match alphabet {
            Alphabet::Bytes => FxHashMap::default(),
            Alphabet::Chars(chars) => chars.iter().copied().zip((0..).map(S::of)).collect(),
        };
        let mut symbols = memory::with_capacity(size);
        let mut weights = Weights::default();
        symbols.push(S::EDGE);
        for (word, count) in words.iter() {
            match alphabet {
                Alphabet::Bytes => symbols.extend(word.iter().map(|&byte| S::of(byte.into()))),
                Alphabet::Chars(_) => {
                    for c in tokens::decode(word)?.chars() {
                        let unknown =
                            || Error::Setting(format!("the character {c:?} of the text is not in the alphabet"));
                        symbols.push(*symbol_of.get(&c).ok_or_else(unknown)?);
                    }
                }
            }
            symbols.push(S::EDGE);
            weights.push(symbols.len(), count);
        }
        Ok(Text { symbols, weights, words })
    }

    /// Calls the symbols at the first of some places into the caches: while one merge is made, those of the next come from
    /// the third-level cache or from memory.
    pub fn foresee(&self, places: &[Place]) {
        const MOST: usize = 16;
        for &place in &places[..places.len().min(MOST)] {
            memory::prefetch(&self.symbols, place as usize);
        }
    }

    /// The positions of `n` parts of about equal size: each begins with a word and ends with an edge, or is empty.
    pub fn parts(&self, n: usize) -> Vec<Range<usize>> {
        let mut start = 1_usize;
        let part = |i: usize| {
            let from = (self.symbols.len() * i / n).max(start) - 1;
            let word = self.symbols[from..].iter().position(|&symbol| symbol == S::EDGE);
            let end = word.map_or(self.symbols.len(), |len| from + len + 1);
            std::mem::replace(&mut start, end)..end
        };
        (1..=n).map(part).collect()
    }

    /// The pairs of neighbours in the words of a part, in order: calls `visit(pair, place, count of the word)`.
    #[inline(always)]
    pub fn for_each_pair(&self, part: Range<usize>, tokens: &Tokens, mut visit: impl FnMut(Pair, Place, u64)) {
        let mut position = part.start;
        while position < part.end {
            let count = self.weights.get(position);
            let mut left = self.symbols[position];
            loop {
                position += tokens.n_symbols(left.token());
                let right = self.symbols[position];
                if right == S::EDGE {
                    break;
                }
                visit((left.token(), right.token()), position as Place, count);
                left = right;
            }
            position += 1;
        }
    }

    /// The tokens of every word.
    pub fn encodings(&self, tokens: &Tokens) -> Encodings {
        let mut encodings = Encodings::default();
        let mut position = 1;
        for _ in 0..self.words.len() {
            encodings.push(std::iter::from_fn(|| {
                let symbol = self.symbols[position];
                position += if symbol == S::EDGE { 1 } else { tokens.n_symbols(symbol.token()) };
                (symbol != S::EDGE).then(|| symbol.token())
            }));
        }
        encodings
    }
}
