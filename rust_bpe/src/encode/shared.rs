//! The words that the threads of a job share: what one has merged no other one merges, and there is one table of them.
//!
//! A thread joins when it has met many words, so the shared tables are large from the start, and never grow. Where many
//! words find no place any more, an empty table takes the place of a full one: threads go on with the old one until they
//! look again, and what is put there meanwhile is lost, which is little and can be merged again.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use super::entry::{Found, MEDIUM_BYTES, SHORT_BYTES, Width, hash_of, medium_key, short_key};
use super::known::KnownWords;
use super::tables::SPILLED_IDS;
use super::write_once::{Share, WriteOnce};
use crate::memory;
use crate::merge::LANES;
use crate::token::TokenId;

type ShortWords = WriteOnce<2, 4>;
type MediumWords = WriteOnce<4, 8>;

/// The sizes of tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Short words that a thread remembers by itself before it joins the others.
    pub own_words: usize,
    /// Powers of two.
    pub short_buckets: usize,
    pub medium_buckets: usize,
    pub spilled_ids: usize,
}

/// Short words that threads remember by themselves before they join, all of them together. Of two each has 16 MiB then, room
/// for the words of 74 MB of English. (The loop takes 2.8 ns a word there, over shared tables 4: the compiler may not join
/// loads beside a writer. Of 16 threads that joined as late, each made 16 MiB for 4 MB of text.)
const OWN_WORDS: usize = 1 << 18;

/// What is shared: 2,097,152 words in 64 MiB, as one thread alone has, 524,288 in 32 MiB, and 64 MiB of ids.
const SHARED: Bounds =
    Bounds { own_words: 0, short_buckets: 1 << 20, medium_buckets: 1 << 18, spilled_ids: 2 * SPILLED_IDS };

/// Known words that a thread puts there at once.
const KNOWN_AT_ONCE: usize = 1 << 12;

/// How many known words ahead a bucket is called.
const AHEAD: usize = 16;

/// The words of the threads that encode a text with one encoder ([`super::Cache::sharing`]). Bounded; ids do not depend
/// on it.
#[derive(Debug)]
pub struct SharedWords {
    pub(super) serial: u64,
    bounds: Bounds,
    width: Width,
    known: Arc<KnownWords>,
    /// Of the known words.
    n_short: usize,
    /// The first of the known words that no thread has put there.
    next_known: AtomicUsize,
    /// None before the first thread joins.
    latest: Mutex<Option<Arc<Generation>>>,
    /// How many generations there were before the latest.
    n_before: AtomicUsize,
    /// Held by the thread that makes the next generation.
    making: Mutex<()>,
}

/// The tables of all threads at one time.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub short: Arc<ShortWords>,
    medium: Arc<MediumWords>,
    pub spilled: Arc<Spilled>,
}

/// Ids of pre-tokens that have too many for their entry.
#[derive(Debug)]
pub(super) struct Spilled {
    ids: Vec<AtomicU32>,
    n_taken: AtomicUsize,
}

/// What one thread sees of the words.
#[derive(Debug)]
pub(super) struct View {
    shared: Arc<SharedWords>,
    pub generation: Arc<Generation>,
    n_before: usize,
    /// What this thread put there.
    short: Share,
    medium: Share,
}

impl SharedWords {
    /// For threads that encode with the encoder `serial`, which knows some words.
    pub(super) fn new(serial: u64, known: Arc<KnownWords>, width: Width, n_threads: usize) -> Self {
        let own_words = (OWN_WORDS / n_threads.max(1)).saturating_sub(LANES);
        Self::bounded(serial, known, width, Bounds { own_words, ..SHARED })
    }

    pub(super) fn bounded(serial: u64, known: Arc<KnownWords>, width: Width, bounds: Bounds) -> Self {
        let n_short = known.count(1..=SHORT_BYTES);
        Self {
            serial,
            bounds,
            width,
            n_short,
            // Fewer are brought by the threads that join.
            next_known: AtomicUsize::new(if n_short > bounds.own_words { 0 } else { known.len() }),
            known,
            latest: Mutex::default(),
            n_before: AtomicUsize::new(0),
            making: Mutex::default(),
        }
    }

    /// How many short words a thread remembers by itself before it joins the others.
    pub(super) fn n_own(&self) -> usize {
        self.bounds.own_words
    }

    /// Whether a thread that remembers so many short words by itself should join the others.
    pub(super) fn is_for(&self, n_short: usize) -> bool {
        n_short > self.bounds.own_words
    }

    /// Whether so many words are known that threads join from the start.
    pub(super) fn is_large(&self) -> bool {
        self.is_for(self.n_short)
    }

    /// None where no thread has joined.
    pub(super) fn latest(&self) -> Option<Arc<Generation>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The latest tables, or the first ones.
    fn join(&self) -> Arc<Generation> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || {
            let Bounds { short_buckets, medium_buckets, spilled_ids, .. } = self.bounds;
            Arc::new(Generation {
                short: Arc::new(ShortWords::new(self.width, short_buckets)),
                medium: Arc::new(MediumWords::new(self.width, medium_buckets)),
                spilled: Arc::new(Spilled::new(spilled_ids)),
            })
        };
        latest.get_or_insert_with(first).clone()
    }

    /// How many words were known from the start.
    pub(super) fn n_known(&self) -> usize {
        self.known.len()
    }

    /// Puts the next generation in the place of `old` if that is full; nothing where another thread does or did so.
    #[cold]
    fn replace(&self, old: &Arc<Generation>) {
        let Ok(_making) = self.making.try_lock() else { return };
        if self.latest().is_none_or(|latest| !Arc::ptr_eq(old, &latest)) {
            return;
        }
        let next = if old.spilled.is_full() {
            // What stands in the tables is of these ids.
            let (short, medium) = (old.short.emptied(), old.medium.emptied());
            Generation { short, medium, spilled: Arc::new(Spilled::new(self.bounds.spilled_ids)) }
        } else {
            Generation { short: old.short.next(), medium: old.medium.next(), spilled: old.spilled.clone() }
        };
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(next));
        self.n_before.fetch_add(1, Release);
    }
}

impl Generation {
    /// Whether a pre-token of at most [`MEDIUM_BYTES`] is remembered.
    pub fn has(&self, pretoken: &[u8]) -> bool {
        match pretoken.len() {
            0..=SHORT_BYTES => self.short.has(&short_key(pretoken, 0, pretoken.len())),
            _ => self.medium.has(&medium_key(pretoken)),
        }
    }

    /// How many words are remembered.
    pub fn len(&self) -> usize {
        self.short.len() + self.medium.len()
    }

    /// Visits a part of the words with their tokens, in no order. Each is in one part.
    pub fn for_each(&self, part: usize, n_parts: usize, mut visit: impl FnMut(&[u8], &[TokenId])) {
        let mut spilled = Vec::new();
        let mut visit = |word: &[u8], found| match found {
            Found::Ids(ids, count) => visit(word, &ids[..count]),
            Found::Spilled(start, end) => {
                spilled.clear();
                self.spilled.copy(start, end, &mut spilled);
                visit(word, &spilled);
            }
        };
        self.short.for_each(part, n_parts, &mut visit);
        self.medium.for_each(part, n_parts, &mut visit);
    }

    fn is_full(&self) -> bool {
        self.short.is_full() || self.medium.is_full() || self.spilled.is_full()
    }
}

impl Spilled {
    fn new(n_ids: usize) -> Self {
        Self { ids: memory::zeroed(n_ids), n_taken: AtomicUsize::new(0) }
    }

    pub fn ids(&self) -> &[AtomicU32] {
        &self.ids
    }

    /// Writes `ids` to a place of their own; None when there is no room.
    fn put(&self, ids: &[TokenId]) -> Option<(u32, u32)> {
        let start = self.n_taken.fetch_add(ids.len(), Relaxed);
        let places = self.ids.get(start..start + ids.len())?;
        places.iter().zip(ids).for_each(|(place, &id)| place.store(id, Relaxed));
        Some((start as u32, (start + ids.len()) as u32))
    }

    /// Appends the ids of an entry to `tokens`.
    fn copy(&self, start: u32, end: u32, tokens: &mut Vec<TokenId>) {
        tokens.extend(self.ids[start as usize..end as usize].iter().map(|id| id.load(Relaxed)));
    }

    fn is_full(&self) -> bool {
        self.n_taken.load(Relaxed) > self.ids.len()
    }
}

impl View {
    pub fn new(shared: Arc<SharedWords>) -> Self {
        let n_before = shared.n_before.load(Acquire);
        let mut view =
            Self { generation: shared.join(), shared, n_before, short: Share::default(), medium: Share::default() };
        view.fill();
        view
    }

    /// Puts known words there, together with the other threads that begin: the first of them with the best places.
    fn fill(&mut self) {
        let known = self.shared.known.clone();
        loop {
            let start = self.shared.next_known.fetch_add(KNOWN_AT_ONCE, Relaxed);
            if start >= known.len() {
                return;
            }
            let end = known.len().min(start + KNOWN_AT_ONCE);
            for index in start..end {
                if index + AHEAD < end {
                    self.prefetch(known.get(index + AHEAD).0);
                }
                let (word, tokens) = known.get(index);
                if word.len() <= MEDIUM_BYTES {
                    self.remember(word, tokens);
                }
            }
            self.count();
        }
    }

    /// Calls the bucket of a pre-token of at most [`MEDIUM_BYTES`] into the caches.
    pub fn prefetch(&self, pretoken: &[u8]) {
        match pretoken.len() {
            0..=SHORT_BYTES => self.generation.short.prefetch(hash_of(&short_key(pretoken, 0, pretoken.len()))),
            16..=MEDIUM_BYTES => self.generation.medium.prefetch(hash_of(&medium_key(pretoken))),
            _ => {}
        }
    }

    /// Appends the tokens of a pre-token of at most [`MEDIUM_BYTES`] to `tokens` where it is remembered.
    pub fn recall(&self, pretoken: &[u8], tokens: &mut Vec<TokenId>) -> bool {
        let Generation { short, medium, spilled } = &*self.generation;
        let found = if pretoken.len() <= SHORT_BYTES {
            short.get(&short_key(pretoken, 0, pretoken.len()))
        } else {
            medium.get(&medium_key(pretoken))
        };
        match found {
            Some(Found::Ids(ids, count)) => tokens.extend_from_slice(&ids[..count]),
            Some(Found::Spilled(start, end)) => spilled.copy(start, end, tokens),
            None => return false,
        }
        true
    }

    /// Remembers the tokens, at least one, of a pre-token of at most [`MEDIUM_BYTES`].
    pub fn remember(&mut self, pretoken: &[u8], tokens: &[TokenId]) {
        let Generation { short, medium, spilled } = &*self.generation;
        let is_short = pretoken.len() <= SHORT_BYTES;
        let key = || short_key(pretoken, 0, pretoken.len());
        if tokens.len() <= if is_short { short.room() } else { medium.room() } {
            return match is_short {
                true => short.insert(&key(), tokens, &mut self.short),
                false => medium.insert(&medium_key(pretoken), tokens, &mut self.medium),
            };
        }
        if self.generation.has(pretoken) {
            return; // no place for its tokens is wanted
        }
        if let Some((start, end)) = spilled.put(tokens) {
            match is_short {
                true => short.insert_spilled(&key(), start, end, &mut self.short),
                false => medium.insert_spilled(&medium_key(pretoken), start, end, &mut self.medium),
            }
        }
    }

    /// Counts what was remembered, and goes on with the latest tables.
    pub fn count(&mut self) {
        self.generation.short.count(&mut self.short);
        self.generation.medium.count(&mut self.medium);
        if self.generation.is_full() {
            self.shared.replace(&self.generation);
        }
        let n_before = self.shared.n_before.load(Acquire);
        if n_before != self.n_before {
            self.n_before = n_before;
            self.generation = self.shared.join();
        }
    }
}
