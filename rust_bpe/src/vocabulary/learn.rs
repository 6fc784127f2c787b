//! From texts in memory to a vocabulary: count their pre-tokens, train, number the ids.

use super::build::{FRONT_TOKENS, UNKNOWN};
use super::{SpecialIds, Vocabulary};
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::pretokenize::Pattern;
use crate::special::SpecialTokens;
use crate::token::MAX_VOCAB_SIZE;
use crate::train::{Alphabet, Stop, Ties, TrainOptions, train};
use crate::words::{WordCounter, Words};

/// What to learn from the texts that a [`Learner`] has counted.
#[derive(Clone, Debug)]
pub struct LearnOptions {
    /// Ids in all: base symbols, merges and special tokens.
    pub vocab_size: usize,
    pub ties: Ties,
    /// A pair that occurs less often is never merged.
    pub min_frequency: u64,
    /// A merge whose result would be longer is never made.
    pub max_token_bytes: Option<usize>,
}

/// Counts texts as they come; memory grows with their distinct words.
pub struct Learner {
    pattern: Pattern,
    over_bytes: bool,
    specials: Vec<String>,
    special_ids: SpecialIds,
    matcher: SpecialTokens,
    counters: Vec<WordCounter>,
}

impl Learner {
    /// All special tokens that the vocabulary will have are searched for in the texts: what stands between them is
    /// learned from, they are not, lest one becomes an ordinary token as well.
    pub fn new(
        pattern: Pattern,
        over_bytes: bool,
        specials: Vec<String>,
        special_ids: SpecialIds,
        n_threads: usize,
    ) -> Result<Self> {
        let own = own_special_tokens(over_bytes, special_ids).iter().map(|string| string.to_string());
        let further = specials.iter().filter(|string| !own.clone().any(|other| other == **string)).cloned();
        let matcher = SpecialTokens::new(own.clone().chain(further).zip(0..).collect())?;
        let counters = (0..n_threads.max(1)).map(|_| WordCounter::new()).collect();
        Ok(Self { pattern, over_bytes, specials, special_ids, matcher, counters })
    }

    /// Counts documents, spread over the threads. Errors: as [`Pattern::split`], positions in their document; over
    /// characters [`Error::Text`] for what is not UTF-8.
    pub fn add(&mut self, texts: &[&[u8]], monitor: &Monitor) -> Result<()> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let (pattern, matcher, over_bytes) = (&self.pattern, &self.matcher, self.over_bytes);
        let count = |counter: &mut WordCounter| -> Result<()> {
            while let Some(text) = texts.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                if !over_bytes {
                    check_utf8(text)?;
                }
                count_text(counter, pattern, matcher, text)?;
                monitor.advance(text.len() as u64)?;
            }
            Ok(())
        };
        if texts.len() < 2 || self.counters.len() < 2 {
            return count(&mut self.counters[0]);
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = self.counters.iter_mut().map(|counter| scope.spawn(|| count(counter))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(Error::Cancelled)))
        })
    }

    /// Trains on what was counted. Errors: [`Error::Setting`] for a size below the base symbols and special tokens, and
    /// as [`train`] and [`Vocabulary::from_merges`].
    pub fn learn(self, options: &LearnOptions, monitor: &Monitor) -> Result<(Vocabulary, Stop)> {
        let n_threads = self.counters.len();
        let words = Words::merge(&self.counters, n_threads)?;
        let alphabet = if self.over_bytes { Alphabet::Bytes } else { Alphabet::chars_of(&words)? };
        let n_specials = self.matcher.len();
        let smallest = alphabet.len() + n_specials;
        if options.vocab_size < smallest || options.vocab_size > MAX_VOCAB_SIZE {
            let symbols = if self.over_bytes { "bytes" } else { "characters" };
            return Err(Error::Setting(format!(
                "vocab_size {}: expected {smallest} ({} {symbols} and {n_specials} special tokens) to {MAX_VOCAB_SIZE}",
                options.vocab_size,
                alphabet.len()
            )));
        }
        let train_options = TrainOptions {
            vocab_size: options.vocab_size - n_specials,
            ties: options.ties,
            min_frequency: options.min_frequency,
            max_token_bytes: options.max_token_bytes,
            threads: n_threads,
        };
        let trained = train(&words, &alphabet, &train_options, monitor)?;
        let vocabulary =
            Vocabulary::from_merges(&alphabet, &trained.merges, self.pattern, &self.specials, self.special_ids)?;
        Ok((vocabulary, trained.stop))
    }
}

/// The special tokens that [`Vocabulary::from_merges`] adds unasked.
fn own_special_tokens(over_bytes: bool, special_ids: SpecialIds) -> &'static [&'static str] {
    match special_ids {
        SpecialIds::Front => &FRONT_TOKENS,
        SpecialIds::End if over_bytes => &[],
        SpecialIds::End => &[UNKNOWN],
    }
}

fn count_text(counter: &mut WordCounter, pattern: &Pattern, specials: &SpecialTokens, text: &[u8]) -> Result<()> {
    let mut start = 0;
    while let Some((place, _)) = specials.find(text, start) {
        counter.add(pattern, &text[start..place.start]).map_err(|error| error.moved(start as u64))?;
        start = place.end;
    }
    counter.add(pattern, &text[start..]).map_err(|error| error.moved(start as u64))
}

fn check_utf8(text: &[u8]) -> Result<()> {
    str::from_utf8(text).map(|_| ()).map_err(|error| Error::Text {
        position: error.valid_up_to() as u64,
        message: "not UTF-8, and an alphabet of characters takes nothing else".to_owned(),
    })
}
