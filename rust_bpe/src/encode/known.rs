//! Words whose tokens are known before any text is read: training leaves every word that it counted encoded.
//!
//! Each encoding thread begins with them, and is spared merging the words of its corpus anew: a sixth of the time of
//! `pylm tokenize` on 74 MB of English.

use super::Cache;
use crate::parallel;
use crate::token::TokenId;
use crate::train::Encodings;
use crate::words::Words;

/// More words than these are not kept, the rarest first: 45 MB of gpt2's on 73 MB of multilingual text, which a quarter of
/// them did not cover (docs/performance.md).
const MOST_WORDS: usize = 1 << 20;

/// Longer words than these are kept as long as all of them together have so many bytes: there are few (lines of dashes,
/// indentation of hundreds of spaces), but each costs as much as hundreds of others.
const LONG_WORD: usize = 64;
const LONG_WORDS_BYTES: usize = 4 << 20;

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

    /// What caches of one encoder remember; none where that is little more than what they began with. Of too
    /// many the shortest: the frequent ones mostly are. A thread for each cache.
    pub fn of_caches(caches: &[Cache]) -> Self {
        if caches.iter().all(|cache| cache.tables.has_learned_little()) {
            return Self::default();
        }
        let n_words: usize = caches.iter().map(|cache| cache.tables.n_words()).sum();
        let n_kinds = if n_words <= MOST_WORDS { 1 } else { LONG_WORD + 1 };
        let mut found =
            parallel::map(0..caches.len(), |index| Self::of_cache(&caches[index], &caches[..index], n_kinds));
        let mut known = Self::default();
        for kind in 0..=n_kinds {
            let most_bytes = if kind == n_kinds { LONG_WORDS_BYTES } else { usize::MAX };
            let before = known.bytes.len();
            for words in found.iter_mut().map(|kinds| std::mem::take(&mut kinds[kind])) {
                known.append(words, MOST_WORDS, before.saturating_add(most_bytes));
            }
        }
        known
    }

    /// What `cache` remembers and none of the `earlier` ones: `n_kinds` by length, one for all lengths or one for each, and
    /// the long ones.
    fn of_cache(cache: &Cache, earlier: &[Cache], n_kinds: usize) -> Vec<Self> {
        let mut kinds = vec![Self::default(); n_kinds + 1];
        cache.tables.for_each(|word, ids| {
            let is_long = word.len() > LONG_WORD;
            let words = &mut kinds[if is_long { n_kinds } else { word.len() % n_kinds }];
            let is_room = if is_long {
                words.bytes.len() + word.len() <= LONG_WORDS_BYTES
            } else {
                words.len() < MOST_WORDS // more of one length are never wanted
            };
            if is_room && !earlier.iter().any(|cache| cache.tables.has(word)) {
                words.push(word, ids.iter().copied());
            }
        });
        kinds
    }

    /// Appends the first of `words`, as long as there are no more than so many words and bytes in all.
    fn append(&mut self, words: Self, most_words: usize, most_bytes: usize) {
        let room = most_words - self.len();
        let n_words = words.ends.partition_point(|&[end, _]| self.bytes.len() + end as usize <= most_bytes).min(room);
        if self.is_empty() && n_words == words.len() {
            *self = words;
            return;
        }
        let [start, first] = [self.bytes.len() as u32, self.ids.len() as u32];
        let [end, last] = if n_words == 0 { [0; 2] } else { words.ends[n_words - 1] };
        self.bytes.extend_from_slice(&words.bytes[..end as usize]);
        self.ids.extend_from_slice(&words.ids[..last as usize]);
        self.ends.extend(words.ends[..n_words].iter().map(|[end, last]| [start + end, first + last]));
    }

    /// At most 2^20 words of at most 2^6 bytes, and the long ones: what they hold together is counted in 32 bits.
    fn push(&mut self, word: &[u8], tokens: impl Iterator<Item = TokenId>) {
        self.bytes.extend_from_slice(word);
        self.ids.extend(tokens);
        self.ends.push([self.bytes.len() as u32, self.ids.len() as u32]);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
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
