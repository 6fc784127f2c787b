//! Words whose tokens are known before any text is read: training leaves every word that it counted encoded.
//!
//! Each encoding thread begins with them, and is spared merging the words of its corpus anew: a sixth of the time of
//! `pylm tokenize` on 74 MB of English.

use std::ops::RangeInclusive;

use crate::token::TokenId;
use crate::train::Encodings;
use crate::words::Words;

/// More words than these are not kept, the rarest first: 45 MB of gpt2's on 73 MB of multilingual text, which a quarter of
/// them did not cover (docs/performance.md).
pub(super) const MOST_WORDS: usize = 1 << 20;

/// Longer words than these are kept as long as all of them together have so many bytes: there are few (lines of dashes,
/// indentation of hundreds of spaces), but each costs as much as hundreds of others.
pub(super) const LONG_WORD: usize = 64;
pub(super) const LONG_WORDS_BYTES: usize = 4 << 20;

/// The tokens of words, those first that are worth most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownWords {
    pub(super) bytes: Vec<u8>,
    pub(super) ids: Vec<TokenId>,
    /// Where each word ends in `bytes`, and where its tokens end in `ids`.
    pub(super) ends: Vec<[u32; 2]>,
}

impl<'w> FromIterator<(&'w [u8], &'w [TokenId])> for KnownWords {
    fn from_iter<I: IntoIterator<Item = (&'w [u8], &'w [TokenId])>>(words: I) -> Self {
        let mut known = Self::default();
        words.into_iter().for_each(|(word, tokens)| known.push(word, tokens.iter().copied()));
        known
    }
}

impl KnownWords {
    /// The most frequent of `words` with what training made of them; `id_of_symbol` has the id of each symbol.
    pub fn of(words: &Words, encodings: &Encodings, id_of_symbol: &[TokenId]) -> Self {
        let mut known = Self::default();
        let mut room = LONG_WORDS_BYTES;
        // The most frequent words come first.
        for ((word, _), symbols) in words.iter().zip(encodings.iter()).take(MOST_WORDS) {
            let is_long = word.len() > LONG_WORD;
            if !is_long || word.len() <= room {
                room -= if is_long { word.len() } else { 0 };
                known.push(word, symbols.iter().map(|&symbol| id_of_symbol[symbol as usize]));
            }
        }
        known
    }

    /// At most 2^20 words of at most 2^6 bytes, and the long ones: what they hold together is counted in 32 bits.
    pub(super) fn push(&mut self, word: &[u8], tokens: impl Iterator<Item = TokenId>) {
        self.bytes.extend_from_slice(word);
        self.ids.extend(tokens);
        self.ends.push([self.bytes.len() as u32, self.ids.len() as u32]);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ids.clear();
        self.ends.clear();
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many words have so many bytes.
    pub(super) fn count(&self, lengths: RangeInclusive<usize>) -> usize {
        self.iter().filter(|(word, _)| lengths.contains(&word.len())).count()
    }

    /// A word with its tokens.
    pub fn get(&self, index: usize) -> (&[u8], &[TokenId]) {
        let [start, first] = if index == 0 { [0; 2] } else { self.ends[index - 1] };
        let [end, last] = self.ends[index];
        (&self.bytes[start as usize..end as usize], &self.ids[first as usize..last as usize])
    }

    /// The words with their tokens.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[TokenId])> {
        (0..self.len()).map(|index| self.get(index))
    }
}
