//! Byte-pair encoding merges from counted words: the most frequent pair of neighbours becomes a token, again and again.
//!
//! What is computed, exactly (and slowly by [`crate::reference`]): the count of a pair is the number of places where its
//! two symbols stand next to each other in a word, overlapping places included (`aaa` holds `aa` twice), each weighted
//! by the word's count. The pair of the largest count is merged in every word from left to right (`aaa` becomes
//! `aa a`); ties are settled by [`Ties`]. Nothing depends on the order of the words or on the number of threads.
//!
//! How: [`text`] keeps the words in one flat array in which neighbours are found by position, [`pairs`] the pairs that
//! may still be merged with the places where they stand, [`queue`] says which one is next, and [`merge`] is the loop.

mod candidates;
mod join;
mod merge;
mod neighbours;
mod pairs;
mod queue;
mod tally;
mod text;
mod tokens;
mod weights;

use std::collections::BTreeSet;

use text::Symbol;

use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::words::Words;

/// What to train.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainOptions {
    /// Symbols of the base alphabet and merges together; special tokens are not included.
    pub vocab_size: usize,
    pub ties: Ties,
    /// A pair that occurs less often is never merged. 0 means the same as 1.
    pub min_frequency: u64,
    /// A merge whose result would be longer is never made; the base symbols stay.
    pub max_token_bytes: Option<usize>,
    /// Threads to use, at least 1. The result is the same with any number.
    pub threads: usize,
}

impl TrainOptions {
    /// The defaults: ties by bytes, every pair counts, tokens of any length, one thread.
    pub fn new(vocab_size: usize) -> Self {
        TrainOptions { vocab_size, ties: Ties::Bytes, min_frequency: 1, max_token_bytes: None, threads: 1 }
    }
}

/// Which of several pairs with the same count is merged first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// The greater pair of byte strings: the left tokens' bytes are compared, then the right ones'.
    #[default]
    Bytes,
    /// The lower pair of ids, base symbols first (a byte's id is its value), then merges by rank.
    Ids,
    /// As [`Ties::Ids`], with the base symbols in the order of the characters that Hugging Face's `tokenizers` writes
    /// for them (GPT-2's visible characters for bytes). Merges equal those of its `BpeTrainer`.
    HuggingFace,
}

/// The symbols that words consist of before the first merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// All 256 bytes; byte b is symbol b.
    Bytes,
    /// These characters, distinct; symbol i is the i-th. Words are UTF-8.
    Chars(Vec<char>),
}

impl Alphabet {
    /// The characters of `words`, sorted. Errors: [`Error::Setting`] when a word is not UTF-8.
    pub fn chars_of(words: &Words) -> Result<Alphabet> {
        let mut chars = BTreeSet::new();
        for (word, _) in words.iter() {
            chars.extend(tokens::decode(word)?.chars());
        }
        Ok(Alphabet::Chars(chars.into_iter().collect()))
    }

    /// The number of symbols.
    pub fn len(&self) -> usize {
        match self {
            Alphabet::Bytes => 256,
            Alphabet::Chars(chars) => chars.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The vocabulary has the size that was asked for.
    Size,
    /// No pair is left that may be merged, so the vocabulary is smaller.
    NoPairs,
}

/// What training leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trained {
    /// By rank: the two symbols that merge i joins into symbol `alphabet.len() + i`.
    pub merges: Vec<(u32, u32)>,
    pub stop: Stop,
    pub encodings: Encodings,
}

/// The symbols of every word after the last merge, in the order of the [`Words`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encodings {
    symbols: Vec<u32>,
    ends: Vec<usize>,
}

impl Encodings {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The symbols of word `index`.
    pub fn get(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.symbols[start..self.ends[index]]
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.len()).map(|index| self.get(index))
    }

    pub(crate) fn push(&mut self, symbols: impl Iterator<Item = u32>) {
        self.symbols.extend(symbols);
        self.ends.push(self.symbols.len());
    }
}

/// Learns `options.vocab_size - alphabet.len()` merges, fewer when the pairs run out ([`Stop::NoPairs`]).
///
/// Errors: [`Error::Setting`] for a vocabulary smaller than the alphabet or of more than 2^31 symbols, for words that
/// the alphabet cannot spell, and for more than 4 GiB of distinct words; [`Error::Cancelled`].
pub fn train(words: &Words, alphabet: &Alphabet, options: &TrainOptions, monitor: &Monitor) -> Result<Trained> {
    let n_merges = n_merges(alphabet, options)?;
    if alphabet.len() + n_merges <= <u16 as Symbol>::MAX_TOKENS {
        train_as::<u16>(words, alphabet, n_merges, options, monitor)
    } else {
        train_as::<u32>(words, alphabet, n_merges, options, monitor)
    }
}

fn train_as<S: Symbol>(
    words: &Words,
    alphabet: &Alphabet,
    n_merges: usize,
    options: &TrainOptions,
    monitor: &Monitor,
) -> Result<Trained> {
    let text = text::Text::<S>::new(words, alphabet)?;
    monitor.start("merging", n_merges as u64);
    let mut trainer = merge::Trainer::new(text, tokens::Tokens::new(alphabet, options.ties), n_merges, options);
    let stop = trainer.run(n_merges, monitor)?;
    Ok(trainer.finish(stop))
}

/// How many merges make the vocabulary that was asked for.
pub(crate) fn n_merges(alphabet: &Alphabet, options: &TrainOptions) -> Result<usize> {
    const LARGEST: usize = 1 << 31;
    if options.vocab_size > LARGEST {
        return Err(Error::Setting(format!("vocab_size is {}: at most {LARGEST} is possible", options.vocab_size)));
    }
    options.vocab_size.checked_sub(alphabet.len()).ok_or_else(|| {
        Error::Setting(format!(
            "vocab_size is {}, less than the {} symbols of the base alphabet: ask for at least that many",
            options.vocab_size,
            alphabet.len()
        ))
    })
}
