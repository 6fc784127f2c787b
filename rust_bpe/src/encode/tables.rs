//! The tokens of pre-tokens met before, in one table for each range of lengths. Bounded; ids do not depend on it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::entry::{Found, MEDIUM_BYTES, SHORT_BYTES, Width, medium_key, short_key};
use super::known::KnownWords;
use super::shared::{SharedWords, View};
use super::words::{MediumWords, ShortWords};
use crate::token::TokenId;

/// Ids of pre-tokens that have too many for their entry; beyond them all is forgotten. 32 MiB: an eighth of it was filled
/// every 15 MB by multilingual text in gpt2's tokens, which then merged all its words anew.
pub(super) const SPILLED_IDS: usize = 1 << 23;

/// Words and ids of longer pre-tokens; beyond them these are forgotten.
const LONG_WORDS_BYTES: usize = 8 << 20;

/// The same of small tables, for words of any length.
const SMALL_BYTES: usize = 256 << 10;

/// A pre-token longer than this is not remembered. Runs of hundreds of spaces and dashes are few, but each costs as much
/// as hundreds of words: with 256 here they took a third of encoding English.
pub(super) const LONGEST_WORD: usize = 1 << 14;

/// How many words ahead [`Tables::of`] looks.
const AHEAD: usize = 16;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub short: ShortWords,
    medium: MediumWords,
    pub spilled: Vec<TokenId>,
    /// In place of the three above, where they would have been too large.
    pub shared: Option<View>,
    long_words: LongWords,
    /// Whether all words stand among the long ones.
    is_small: bool,
    /// The number of words known from the start.
    n_known: usize,
}

impl Tables {
    /// Empty ones that keep ids in `width`.
    pub fn new(width: Width) -> Self {
        let mut tables = Self::default();
        (tables.short.width, tables.medium.width) = (width, width);
        tables
    }

    /// The same for a text of which little may be held: 256 KiB of words, more slowly.
    pub fn small() -> Self {
        Self { is_small: true, long_words: LongWords::new(SMALL_BYTES), ..Self::default() }
    }

    /// With what is known of some words, the first of them with the best places.
    pub fn of(known: &KnownWords, n_words: usize, width: Width) -> Self {
        let mut tables = Self::new(width);
        tables.short.reserve(known.count(1..=SHORT_BYTES).max(n_words));
        tables.medium.reserve(known.count(SHORT_BYTES + 1..=MEDIUM_BYTES));
        for index in (0..known.len()).rev() {
            // The table is larger than the caches: what is put there soon is called into them.
            let soon = if index >= AHEAD { known.get(index - AHEAD).0 } else { &[] };
            if (1..=SHORT_BYTES).contains(&soon.len()) {
                tables.short.prefetch(ShortWords::hash(&short_key(soon, 0, soon.len())));
            }
            let (word, tokens) = known.get(index);
            tables.remember(word, tokens);
        }
        Self { n_known: known.len(), ..tables }
    }

    /// With the words that other threads know too. Long ones are few, and each thread's own.
    pub fn sharing(shared: &Arc<SharedWords>, known: &KnownWords) -> Self {
        let mut tables = Self { shared: Some(View::new(shared.clone())), ..Self::default() };
        for (word, tokens) in known.iter().filter(|(word, _)| word.len() > MEDIUM_BYTES) {
            tables.long_words.insert(word, tokens);
        }
        tables
    }

    pub fn is_small(&self) -> bool {
        self.is_small
    }

    /// Calls the bucket of a pre-token of at most [`MEDIUM_BYTES`] into the caches.
    pub fn prefetch(&self, pretoken: &[u8]) {
        if let Some(view) = &self.shared {
            return view.prefetch(pretoken);
        }
        if pretoken.len() <= SHORT_BYTES {
            self.short.prefetch(ShortWords::hash(&short_key(pretoken, 0, pretoken.len())));
        } else {
            self.medium.prefetch(MediumWords::hash(&medium_key(pretoken)));
        }
    }

    /// Replaces `tokens` by those of a pre-token that is remembered.
    pub fn recall(&mut self, pretoken: &[u8], tokens: &mut Vec<TokenId>) -> bool {
        tokens.clear();
        if self.is_small {
            return self.long_words.get(pretoken, tokens);
        }
        if let Some(view) = &self.shared
            && pretoken.len() <= MEDIUM_BYTES
        {
            return view.recall(pretoken, tokens);
        }
        let found = if pretoken.len() <= SHORT_BYTES {
            self.short.get(&short_key(pretoken, 0, pretoken.len()))
        } else if pretoken.len() <= MEDIUM_BYTES {
            self.medium.get(&medium_key(pretoken))
        } else {
            return self.long_words.get(pretoken, tokens);
        };
        match found {
            Some(Found::Ids(ids, count)) => tokens.extend_from_slice(&ids[..count]),
            Some(Found::Spilled(start, end)) => tokens.extend_from_slice(&self.spilled[start as usize..end as usize]),
            None => return false,
        }
        true
    }

    /// Whether a pre-token is remembered.
    pub fn has(&self, pretoken: &[u8]) -> bool {
        if let Some(view) = &self.shared
            && pretoken.len() <= MEDIUM_BYTES
        {
            return view.generation.has(pretoken);
        }
        match pretoken.len() {
            0..=SHORT_BYTES if !self.is_small => self.short.has(&short_key(pretoken, 0, pretoken.len())),
            0..=MEDIUM_BYTES if !self.is_small => self.medium.has(&medium_key(pretoken)),
            _ => self.long_words.places.contains_key(pretoken),
        }
    }

    /// Remembers `tokens` as those of a pre-token.
    pub fn remember(&mut self, pretoken: &[u8], tokens: &[TokenId]) {
        let n_ids = tokens.len();
        if n_ids == 0 {
            return; // in the tables that is no entry
        }
        if self.is_small || pretoken.len() > MEDIUM_BYTES {
            return self.long_words.insert(pretoken, tokens);
        }
        if let Some(view) = &mut self.shared {
            return view.remember(pretoken, tokens);
        }
        let is_short = pretoken.len() <= SHORT_BYTES;
        if n_ids <= if is_short { self.short.room() } else { self.medium.room() } {
            match is_short {
                true => self.short.insert(&short_key(pretoken, 0, pretoken.len()), tokens),
                false => self.medium.insert(&medium_key(pretoken), tokens),
            }
            return;
        }
        if self.spilled.len() + n_ids > SPILLED_IDS {
            self.forget();
        }
        let start = self.spilled.len() as u32;
        self.spilled.extend_from_slice(tokens);
        let end = self.spilled.len() as u32;
        match is_short {
            true => self.short.insert_spilled(&short_key(pretoken, 0, pretoken.len()), start, end),
            false => self.medium.insert_spilled(&medium_key(pretoken), start, end),
        }
    }

    /// Sees what other threads have put into the shared tables; where this thread's own are full, puts their words there, too,
    /// and goes on with the shared ones.
    pub fn meet(&mut self, shared: Option<&Arc<SharedWords>>) {
        match (&mut self.shared, shared) {
            (Some(view), _) => view.count(),
            (None, Some(shared)) if shared.is_for(self.short.len()) => self.join(shared),
            _ => {}
        }
    }

    #[cold]
    fn join(&mut self, shared: &Arc<SharedWords>) {
        let mut view = View::new(shared.clone());
        // A few wait for their buckets to come into the caches.
        let mut waiting = KnownWords::default();
        let put = |view: &mut View, waiting: &mut KnownWords| {
            waiting.iter().for_each(|(word, tokens)| view.remember(word, tokens));
            waiting.clear();
            view.count();
        };
        self.for_each(|word, tokens| {
            if word.len() <= MEDIUM_BYTES {
                view.prefetch(word);
                waiting.push(word, tokens.iter().copied());
            }
            if waiting.len() == AHEAD {
                put(&mut view, &mut waiting);
            }
        });
        put(&mut view, &mut waiting);
        self.short.clear();
        self.medium.clear();
        self.spilled = Vec::new();
        self.shared = Some(view);
    }

    /// How many words are remembered that are not shared.
    pub fn n_words(&self) -> usize {
        self.short.len() + self.medium.len() + self.long_words.places.len()
    }

    /// Whether there are hardly more words than were known from the start. Not how many were learned: where tables are
    /// full, words come and go.
    pub fn has_learned_little(&self) -> bool {
        self.n_words() <= self.n_known + self.n_known / 8
    }

    /// Visits all words that are not shared with their tokens, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], &[TokenId])) {
        for (word, &(start, end)) in &self.long_words.places {
            visit(word, &self.long_words.ids[start as usize..end as usize]);
        }
        let mut visit = |word: &[u8], found| match found {
            Found::Ids(ids, count) => visit(word, &ids[..count]),
            Found::Spilled(start, end) => visit(word, &self.spilled[start as usize..end as usize]),
        };
        self.short.for_each(&mut visit);
        self.medium.for_each(&mut visit);
    }

    fn forget(&mut self) {
        self.short.clear();
        self.medium.clear();
        self.spilled.clear();
        self.long_words = LongWords::new(self.long_words.most_bytes);
    }
}

/// Pre-tokens of 32 bytes and more, or all.
#[derive(Debug)]
struct LongWords {
    most_bytes: usize,
    places: FxHashMap<Box<[u8]>, (u32, u32)>,
    ids: Vec<TokenId>,
    size_bytes: usize,
}

impl Default for LongWords {
    fn default() -> Self {
        Self::new(LONG_WORDS_BYTES)
    }
}

impl LongWords {
    fn new(most_bytes: usize) -> Self {
        Self { most_bytes, places: FxHashMap::default(), ids: Vec::new(), size_bytes: 0 }
    }

    /// Replaces `tokens` by the ids of a pre-token that is known here.
    fn get(&self, pretoken: &[u8], tokens: &mut Vec<TokenId>) -> bool {
        if pretoken.len() > LONGEST_WORD {
            return false;
        }
        let Some(&(start, end)) = self.places.get(pretoken) else { return false };
        tokens.clear();
        tokens.extend_from_slice(&self.ids[start as usize..end as usize]);
        true
    }

    fn insert(&mut self, pretoken: &[u8], tokens: &[TokenId]) {
        // What an entry of the map costs beside its own bytes.
        const ENTRY_BYTES: usize = 48;
        if pretoken.len() > LONGEST_WORD {
            return;
        }
        if self.size_bytes > self.most_bytes {
            *self = Self::new(self.most_bytes);
        }
        let start = self.ids.len() as u32;
        self.ids.extend_from_slice(tokens);
        self.places.insert(pretoken.into(), (start, self.ids.len() as u32));
        self.size_bytes += pretoken.len() + 4 * tokens.len() + ENTRY_BYTES;
    }
}
