//! All words in one flat array of symbols, in which a merge costs a few stores and neighbours are found by position.
//!
//! A token writes its number at its first and at its last place; what stands between is never read. So the left
//! neighbour's number stands just before a token, and the token's length leads to the right neighbour's: no linked
//! list, no rebuilt words.
//!
//! A boundary at position b lies between the tokens that end at b - 1 and begin at b. A pair once noted at b still stands
//! there exactly when these two places hold its two tokens: a merge on either side rewrites one of the two places, and
//! the merge that swallows b is that of the very pair, which comes once.

use rustc_hash::FxHashMap;

use super::tokens::{self, Tokens};
use super::{Alphabet, Encodings};
use crate::error::{Error, Result};
use crate::words::Words;

/// Stands before, between and behind words; never a token.
pub const EDGE: u32 = u32::MAX;

/// The words in their order, each between two [`EDGE`]s.
pub struct Text<'w> {
    pub symbols: Vec<u32>,
    words: &'w Words,
    heavy: Vec<Heavy>,
}

/// A word whose count does not fit a [`Place`].
struct Heavy {
    /// The edge before the word.
    start: u32,
    weight: u64,
}

/// A boundary in [`Text::symbols`] and the count of its word, in eight bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    pub boundary: u32,
    /// `u32::MAX` for a count of that or more: [`Text::weight`] knows it.
    weight: u32,
}

impl<'w> Text<'w> {
    /// Spells the words. Errors as [`super::train`].
    pub fn new(words: &'w Words, alphabet: &Alphabet) -> Result<Self> {
        let size = words.n_bytes() + words.len() + 1;
        if size >= u32::MAX as usize {
            return Err(Error::Setting(format!(
                "{} distinct words hold {} bytes, which is more than training can number (4 GiB, one byte for each word \
                 included): train on less text, or choose a --pattern that splits it into shorter words",
                words.len(),
                words.n_bytes()
            )));
        }
        let mut symbols = Vec::with_capacity(size);
        let mut heavy = Vec::new();
        symbols.push(EDGE);
        let symbol_of: FxHashMap<char, u32> = match alphabet {
            Alphabet::Bytes => FxHashMap::default(),
            Alphabet::Chars(chars) => chars.iter().copied().zip(0..).collect(),
        };
        for (word, weight) in words.iter() {
            if weight >= u64::from(u32::MAX) {
                heavy.push(Heavy { start: symbols.len() as u32 - 1, weight });
            }
            match alphabet {
                Alphabet::Bytes => symbols.extend(word.iter().map(|&byte| u32::from(byte))),
                Alphabet::Chars(_) => {
                    for c in tokens::decode(word)?.chars() {
                        let unknown =
                            || Error::Setting(format!("the character {c:?} of the text is not in the alphabet"));
                        symbols.push(*symbol_of.get(&c).ok_or_else(unknown)?);
                    }
                }
            }
            symbols.push(EDGE);
        }
        Ok(Text { symbols, words, heavy })
    }

    /// The pairs of neighbours in all words, in order: calls `visit(left token, right token, place)`.
    pub fn for_each_pair(&self, tokens: &Tokens, mut visit: impl FnMut(u32, u32, Place)) {
        let mut position = 1;
        for (_, count) in self.words.iter() {
            let weight = count.min(u64::from(u32::MAX)) as u32;
            let mut left = self.symbols[position];
            loop {
                position += tokens.n_symbols(left) as usize;
                let right = self.symbols[position];
                if right == EDGE {
                    break;
                }
                visit(left, right, Place { boundary: position as u32, weight });
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
                let token = self.symbols[position];
                position += if token == EDGE { 1 } else { tokens.n_symbols(token) as usize };
                (token != EDGE).then_some(token)
            }));
        }
        encodings
    }

    /// Whether the pair noted at a place has not been touched since.
    #[inline]
    pub fn stands(&self, (left, right): (u32, u32), place: Place) -> bool {
        let boundary = place.boundary as usize;
        (self.symbols[boundary - 1] == left) & (self.symbols[boundary] == right)
    }

    /// The count of the word at a place.
    #[inline]
    pub fn weight(&self, place: Place) -> u64 {
        if place.weight == u32::MAX { self.heavy_weight(place.boundary) } else { u64::from(place.weight) }
    }

    #[cold]
    fn heavy_weight(&self, boundary: u32) -> u64 {
        let after = self.heavy.partition_point(|word| word.start < boundary);
        self.heavy[after - 1].weight
    }
}

impl Place {
    /// Another boundary in the same word.
    pub fn moved(self, boundary: usize) -> Place {
        Place { boundary: boundary as u32, weight: self.weight }
    }
}
