//! Distinct pre-tokens and how often they occur: all that training needs to know of a corpus.
//!
//! Each thread counts into a [`WordCounter`] of its own, without locks; [`Words::merge`] joins them. Memory grows with
//! the distinct words, not with the text.

mod key;
mod merge;
mod table;

use std::cmp::Reverse;
use std::collections::HashMap;

use rustc_hash::FxHashMap;

use crate::error::{Error, Result};
use crate::pretokenize::Pattern;
use key::{Key, Key16, Key32};
use table::{BATCH, Table};

/// Counts the pre-tokens of one thread. Almost all words are shorter than 16 bytes and live in a table of 32-byte
/// slots, one cache line each; the next tier holds up to 31 bytes (5 % of the pre-tokens of multilingual text), a
/// general map the rest.
#[derive(Default)]
pub struct WordCounter {
    short: Table<Key16>,
    medium: Table<Key32>,
    /// Counts and numbers.
    long: FxHashMap<Box<[u8]>, (u64, u32)>,
    ends: Vec<usize>,
}

/// The marks of the three tiers in what [`WordCounter::note`] writes; numbers below them go from 0 in each tier.
pub const TIER_SHIFT: u32 = 30;
pub const N_TIERS: usize = 3;
const SHORT: u32 = 0;
const MEDIUM: u32 = 1 << TIER_SHIFT;
const LONG: u32 = 2 << TIER_SHIFT;

impl WordCounter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the pre-tokens of `text`, which has real edges on both sides (a document, or a piece cut at
    /// [`Pattern::safe_cut`]). Errors are the pattern's.
    pub fn add(&mut self, pattern: &Pattern, text: &[u8]) -> Result<()> {
        self.each_batch(pattern, text, |counter, start, ends| counter.add_pretokens(text, start, ends))
    }

    /// The same, each pre-token `count` times, and writes the number of each one's word, with the mark of its tier, behind
    /// `numbers`. A word that counts 0 times is numbered and not trained on.
    pub fn note(&mut self, pattern: &Pattern, text: &[u8], count: u64, numbers: &mut Vec<u32>) -> Result<()> {
        self.each_batch(pattern, text, |counter, start, ends| counter.note_pretokens(text, start, ends, count, numbers))
    }

    fn each_batch(
        &mut self,
        pattern: &Pattern,
        text: &[u8],
        mut take: impl FnMut(&mut Self, usize, &[usize]),
    ) -> Result<()> {
        let mut ends = std::mem::take(&mut self.ends);
        let mut splitter = pattern.splitter(text);
        let mut start = 0;
        while start < text.len() {
            splitter.next(start, &mut ends)?;
            let Some(&last) = ends.last() else { break };
            take(self, start, &ends);
            start = last;
        }
        self.ends = ends;
        Ok(())
    }

    /// Counts one word `count` times; an empty one is nothing. Counts beyond 64 bits stay at the largest.
    pub fn add_word(&mut self, word: &[u8], count: u64) {
        if word.is_empty() || count == 0 {
        } else if word.len() <= Key16::MAX_LEN {
            self.short.add(Key16::of(word, 0, word.len()), count);
        } else if word.len() <= Key32::MAX_LEN {
            self.medium.add(Key32::of(word, 0, word.len()), count);
        } else {
            add_long(&mut self.long, word, count);
        }
    }

    /// Distinct words so far.
    pub fn len(&self) -> usize {
        self.short.len() + self.medium.len() + self.long.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts the pre-tokens of `text` that begin at `start` and end at `ends`, one behind the other.
    pub fn add_pretokens(&mut self, text: &[u8], mut start: usize, ends: &[usize]) {
        for ends in ends.chunks(BATCH) {
            let (mut short, mut medium) = (self.short.batch(), self.medium.batch());
            for &end in ends {
                let len = end - start;
                if len <= Key16::MAX_LEN {
                    short.push(Key16::of(text, start, len));
                } else if len <= Key32::MAX_LEN {
                    medium.push(Key32::of(text, start, len));
                } else {
                    add_long(&mut self.long, &text[start..end], 1);
                }
                start = end;
            }
            let (n_short, n_medium) = (short.len(), medium.len());
            self.short.count_batch(n_short);
            self.medium.count_batch(n_medium);
        }
    }

    fn note_pretokens(&mut self, text: &[u8], mut start: usize, ends: &[usize], count: u64, numbers: &mut Vec<u32>) {
        for ends in ends.chunks(BATCH) {
            let first = numbers.len();
            numbers.resize(first + ends.len(), 0);
            let numbers = &mut numbers[first..];
            let (mut short, mut medium) = (self.short.batch(), self.medium.batch());
            for (place, &end) in ends.iter().enumerate() {
                let len = end - start;
                if len <= Key16::MAX_LEN {
                    short.push_at(Key16::of(text, start, len), place);
                } else if len <= Key32::MAX_LEN {
                    medium.push_at(Key32::of(text, start, len), place);
                } else {
                    numbers[place] = LONG | add_long(&mut self.long, &text[start..end], count);
                }
                start = end;
            }
            let (n_short, n_medium) = (short.len(), medium.len());
            self.short.note_batch(n_short, count, SHORT, numbers);
            self.medium.note_batch(n_medium, count, MEDIUM, numbers);
        }
    }

    /// The number of words in each tier.
    pub fn tier_sizes(&self) -> [usize; N_TIERS] {
        [self.short.len(), self.medium.len(), self.long.len()]
    }

    /// Visits all words with their marked numbers, in no order.
    pub fn for_each_noted(&self, mut visit: impl FnMut(u32, &[u8])) {
        self.short.for_each(|number, key| key.with_bytes(|word| visit(number | SHORT, word)));
        self.medium.for_each(|number, key| key.with_bytes(|word| visit(number | MEDIUM, word)));
        self.long.iter().for_each(|(word, &(_, number))| visit(number | LONG, word));
    }
}

/// Returns the word's number.
fn add_long(words: &mut FxHashMap<Box<[u8]>, (u64, u32)>, word: &[u8], count: u64) -> u32 {
    if let Some((total, number)) = words.get_mut(word) {
        *total = total.saturating_add(count);
        return *number;
    }
    let number = words.len() as u32; // as in the tables
    words.insert(word.into(), (count, number));
    number
}

/// Distinct words with their counts, numbered from 0, the most frequent ones first. The order is the same with any number of threads, and
/// training gives the same merges for any order.
#[derive(Clone, Debug, Default)]
pub struct Words {
    bytes: Vec<u8>,
    /// `ends[i]` is where word i ends in `bytes`; it begins where word i - 1 ends.
    ends: Vec<usize>,
    counts: Vec<u64>,
    n_pretokens: u64,
}

impl Words {
    /// Joins what several threads counted, by `threads` threads.
    ///
    /// Errors: [`Error::Setting`] when the text holds more than 2^64 bytes of pre-tokens, counting repetitions. The
    /// bound means that no count of a word or of a pair can overflow later.
    pub fn merge(counters: &[WordCounter], threads: usize) -> Result<Words> {
        let parts = merge::by_shards(counters, threads);
        Words::concat(parts).most_frequent_first().check_total()
    }

    /// Words given with their counts; a word that comes twice counts for both.
    pub fn from_counts<W: AsRef<[u8]>>(counts: impl IntoIterator<Item = (W, u64)>) -> Result<Words> {
        let mut index_of: HashMap<Box<[u8]>, usize> = HashMap::new();
        let mut words = Words::default();
        for (word, count) in counts {
            let word = word.as_ref();
            if word.is_empty() || count == 0 {
                continue;
            }
            match index_of.get(word) {
                Some(&i) => words.counts[i] = words.counts[i].saturating_add(count),
                None => {
                    index_of.insert(word.into(), words.len());
                    words.push(word, count);
                }
            }
        }
        words.most_frequent_first().check_total()
    }

    /// Distinct words.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// All pre-tokens, repetitions counted.
    pub fn n_pretokens(&self) -> u64 {
        self.n_pretokens
    }

    /// Bytes of all distinct words, each taken once.
    pub fn n_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn get(&self, index: usize) -> (&[u8], u64) {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        (&self.bytes[start..self.ends[index]], self.counts[index])
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], u64)> {
        (0..self.len()).map(|index| self.get(index))
    }

    fn concat(parts: Vec<Words>) -> Words {
        let mut words = Words::default();
        words.bytes.reserve_exact(parts.iter().map(|part| part.bytes.len()).sum());
        words.reserve(parts.iter().map(Words::len).sum());
        for part in parts {
            let start = words.bytes.len();
            words.bytes.extend_from_slice(&part.bytes);
            words.ends.extend(part.ends.iter().map(|end| start + end));
            words.counts.extend_from_slice(&part.counts);
        }
        words
    }

    fn reserve(&mut self, n_words: usize) {
        self.ends.reserve_exact(n_words);
        self.counts.reserve_exact(n_words);
    }

    fn push(&mut self, word: &[u8], count: u64) {
        self.bytes.extend_from_slice(word);
        self.ends.push(self.bytes.len());
        self.counts.push(count);
    }

    fn most_frequent_first(self) -> Words {
        // Almost all words are rare: those go by one pass over bins, and only the frequent ones are sorted.
        const N_BINS: usize = 256;
        let bin = |count: u64| N_BINS - 1 - count.min(N_BINS as u64 - 1) as usize;
        let mut starts = [0; N_BINS + 1];
        self.counts.iter().for_each(|&count| starts[bin(count) + 1] += 1);
        let n_frequent = starts[1];
        (1..=N_BINS).for_each(|i| starts[i] += starts[i - 1]);
        let mut order = vec![0_usize; self.len()];
        for (index, &count) in self.counts.iter().enumerate() {
            let place = &mut starts[bin(count)];
            order[*place] = index;
            *place += 1;
        }
        order[..n_frequent].sort_unstable_by_key(|&index| (Reverse(self.counts[index]), index));
        let mut words = Words::default();
        words.bytes.reserve_exact(self.bytes.len());
        words.reserve(self.len());
        for index in order {
            let (word, count) = self.get(index);
            words.push(word, count);
        }
        words
    }

    fn check_total(mut self) -> Result<Words> {
        let total: u128 = self.iter().map(|(word, count)| word.len() as u128 * u128::from(count)).sum();
        if total > u128::from(u64::MAX) {
            return Err(Error::Setting(format!(
                "the counted words hold {total} bytes in all, more than 64-bit counts can sum (at most {})",
                u64::MAX
            )));
        }
        self.n_pretokens = self.counts.iter().sum();
        Ok(self)
    }
}
