//! The words that the threads of a job remember at its end, gathered for the next one.

use std::sync::Arc;

use super::Cache;
use super::entry::MEDIUM_BYTES;
use super::known::{KnownWords, LONG_WORD, LONG_WORDS_BYTES, MOST_WORDS};
use super::shared::Generation;
use crate::memory;
use crate::parallel;
use crate::token::TokenId;

/// What is gathered by a thread: words that are kept, those of the longest length that is, of which there may be too many,
/// and very long ones, which have their own bound.
type Kinds = [KnownWords; 3];

/// So many words have room of huge pages from the start; of fewer these would be half empty.
const MANY: usize = 1 << 18;

/// Of a word on average; room for more costs nothing before it is used.
const WORD_BYTES: usize = 24;
const WORD_IDS: usize = 16;

impl KnownWords {
    /// What caches of one encoder remember, all with the same shared words or with none, in parts; nothing where that is
    /// little more than what they began with. (Not how many words were learned: where tables are full, words come and
    /// go.) Of too many the shortest: the frequent ones mostly are. A thread for each cache.
    pub fn of_caches(caches: &[Cache]) -> Vec<Self> {
        let gathered = Gathered::new(caches, MOST_WORDS);
        if gathered.is_little() { Vec::new() } else { gathered.parts() }
    }

    /// The first words, so many of them and of so many bytes at most.
    fn first(mut self, most_words: usize, most_bytes: usize) -> Self {
        let n_words = self.ends.partition_point(|&[end, _]| end as usize <= most_bytes).min(most_words);
        let [end, last] = if n_words == 0 { [0; 2] } else { self.ends[n_words - 1] };
        self.bytes.truncate(end as usize);
        self.ids.truncate(last as usize);
        self.ends.truncate(n_words);
        self
    }
}

/// The words of some caches.
pub(super) struct Gathered<'c> {
    caches: &'c [Cache],
    most_words: usize,
    shared: Option<Arc<Generation>>,
    /// How many words are shared, and how many there are, where several caches may have the same.
    n_shared: usize,
    n_words: usize,
}

impl<'c> Gathered<'c> {
    pub fn new(caches: &'c [Cache], most_words: usize) -> Self {
        let shared = caches.first().and_then(|cache| cache.shared.as_deref()?.latest());
        let n_shared = shared.as_deref().map_or(0, Generation::len);
        let n_own: usize = caches.iter().map(|cache| cache.tables.n_words()).sum();
        Self { caches, most_words, shared, n_shared, n_words: n_own + n_shared }
    }

    fn is_little(&self) -> bool {
        match (&self.shared, self.caches.first().and_then(|cache| cache.shared.as_deref())) {
            (Some(_), Some(shared)) => self.n_words <= shared.n_known() + shared.n_known() / 8,
            _ => self.caches.iter().all(|cache| cache.tables.has_learned_little()),
        }
    }

    /// What is kept.
    pub fn parts(&self) -> Vec<KnownWords> {
        let longest = self.longest_length();
        let mut found = parallel::map(0..self.caches.len(), |index| self.of_cache(index, longest));
        let mut parts = Vec::new();
        let (mut n_left, mut bytes_left) = (self.most_words, LONG_WORDS_BYTES);
        for kind in 0..3 {
            for words in found.iter_mut().map(|kinds| std::mem::take(&mut kinds[kind])) {
                let words = words.first(n_left, if kind == 2 { bytes_left } else { usize::MAX });
                n_left -= words.len();
                bytes_left -= if kind == 2 { words.bytes.len() } else { 0 };
                if !words.is_empty() {
                    parts.push(words);
                }
            }
        }
        parts
    }

    /// The length beyond which there are too many words.
    fn longest_length(&self) -> usize {
        if self.n_words <= self.most_words {
            return LONG_WORD + 1;
        }
        // Those that are shared, where none of the others is as short.
        let are_kept =
            self.n_shared <= self.most_words && self.caches.iter().all(|cache| cache.tables.shared.is_some());
        let lengths = parallel::map(0..self.caches.len(), |index| {
            let mut lengths = [0; LONG_WORD + 1];
            let mut count = |word: &[u8]| {
                if let Some(n_words) = lengths.get_mut(word.len()) {
                    *n_words += 1;
                }
            };
            self.each_own(index, |word, _| count(word));
            match &self.shared {
                Some(shared) if !are_kept => shared.for_each(index, self.caches.len(), |word, _| count(word)),
                _ if index == 0 => lengths[0] += self.n_shared,
                _ => {}
            }
            lengths
        });
        let mut n_words = 0;
        let is_too_long = |&length: &usize| {
            n_words += lengths.iter().map(|lengths| lengths[length]).sum::<usize>();
            n_words > self.most_words
        };
        (0..=LONG_WORD).find(is_too_long).unwrap_or(LONG_WORD + 1)
    }

    /// Visits what a cache remembers by itself and none before it.
    fn each_own(&self, index: usize, mut visit: impl FnMut(&[u8], &[TokenId])) {
        let (earlier, cache) = (&self.caches[..index], &self.caches[index]);
        cache.tables.for_each(|word, ids| {
            let is_shared = word.len() <= MEDIUM_BYTES && self.shared.as_ref().is_some_and(|shared| shared.has(word));
            if !is_shared && !earlier.iter().any(|cache| cache.tables.has(word)) {
                visit(word, ids);
            }
        });
    }

    /// What a cache remembers and none before it, and its part of what is shared.
    fn of_cache(&self, index: usize, longest: usize) -> Kinds {
        let (cache, n_caches) = (&self.caches[index], self.caches.len());
        let n_words = cache.tables.n_words() + self.n_shared / n_caches;
        let room = match n_words {
            0..MANY => KnownWords::default(),
            _ => KnownWords {
                bytes: memory::with_capacity(WORD_BYTES * n_words),
                ids: memory::with_capacity(WORD_IDS * n_words),
                ends: memory::with_capacity(2 * n_words),
            },
        };
        let mut kinds = [room, KnownWords::default(), KnownWords::default()];
        let mut take = |word: &[u8], ids: &[TokenId]| {
            let kind = match word.len() {
                length if length > LONG_WORD => 2,
                length if length > longest => return,
                length => usize::from(length == longest),
            };
            let words = &mut kinds[kind];
            // More than these are never wanted.
            if words.len() < self.most_words && (kind < 2 || words.bytes.len() <= LONG_WORDS_BYTES) {
                words.push(word, ids.iter().copied());
            }
        };
        self.each_own(index, &mut take);
        if let Some(shared) = &self.shared {
            shared.for_each(index, n_caches, take);
        }
        kinds
    }
}
