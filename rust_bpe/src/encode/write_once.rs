//! The tables of [`super::words`] for threads that fill and read them at the same time: an entry is written once.
//!
//! Nobody waits. Who finds an empty entry claims it by its last word of the key, writes the rest, and then puts that word
//! into its place with the number of ids: who sees the number sees the rest. Two threads may put the same word into two
//! entries; they say the same.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::entry::{self, COUNT_SHIFT, Found, KEY_BITS, Width, count_of};
use crate::memory;
use crate::token::TokenId;

/// In the last word of the key while an entry is written: of no ids, so nobody takes it for a word.
const CLAIMED: u64 = 1;

/// As [`super::words::Words`], of a size that stays.
#[derive(Debug)]
pub(super) struct WriteOnce<const KEY: usize, const SIZE: usize> {
    width: Width,
    /// Those of the buckets from one place on, which is the boundary of a cache line. Zeros of the kernel: it clears pages when
    /// they are written to, for whichever thread does that.
    words: Vec<AtomicU64>,
    start: usize,
    /// A power of two.
    n_buckets: usize,
    /// As far as they have been counted, by [`WriteOnce::count`].
    n_entries: AtomicUsize,
    n_lost: AtomicUsize,
}

/// Two entries. In an empty one all is zero.
pub(super) type Bucket<const SIZE: usize> = [[AtomicU64; SIZE]; 2];

/// Words that one thread has put into a table since it counted them last, and those that found no place.
#[derive(Debug, Default)]
pub(super) struct Share {
    n_new: usize,
    n_lost: usize,
}

impl<const KEY: usize, const SIZE: usize> WriteOnce<KEY, SIZE> {
    pub fn new(width: Width, n_buckets: usize) -> Self {
        let (words, start) = memory::zeroed_aligned(2 * SIZE * n_buckets);
        Self { width, words, start, n_buckets, n_entries: AtomicUsize::new(0), n_lost: AtomicUsize::new(0) }
    }

    pub fn width(&self) -> Width {
        self.width
    }

    #[inline(always)]
    pub fn buckets(&self) -> &[Bucket<SIZE>] {
        self.words[self.start..].as_chunks().0.as_chunks().0.get(..self.n_buckets).unwrap_or_default()
    }

    /// Ids that an entry has room for.
    pub fn room(&self) -> usize {
        entry::room::<KEY, SIZE>(self.width)
    }

    /// How many words have been counted.
    pub fn len(&self) -> usize {
        self.n_entries.load(Relaxed)
    }

    /// Adds what a thread did.
    pub fn count(&self, share: &mut Share) {
        if share.n_new > 0 {
            self.n_entries.fetch_add(share.n_new, Relaxed);
        }
        if share.n_lost > 0 {
            self.n_lost.fetch_add(share.n_lost, Relaxed);
        }
        *share = Share::default();
    }

    /// What is known of a pre-token.
    pub fn get(&self, key: &[u64; KEY]) -> Option<Found> {
        entry::found_in::<KEY, SIZE>(&read::<KEY, SIZE>(self.find(key)?), self.width)
    }

    /// Whether a pre-token is known.
    pub fn has(&self, key: &[u64; KEY]) -> bool {
        self.find(key).is_some()
    }

    fn find(&self, key: &[u64; KEY]) -> Option<&[AtomicU64; SIZE]> {
        let places = self.places(key)?.into_iter();
        // What came later than this one found no place before it.
        places.take_while(|place| place[KEY - 1].load(Relaxed) != 0).find(|place| is_of(place, key))
    }

    /// Where a pre-token may stand, in the order in which these are filled; nothing is ever removed from them.
    fn places(&self, key: &[u64; KEY]) -> Option<[&[AtomicU64; SIZE]; 4]> {
        let buckets = self.buckets();
        let home = place_of(buckets, entry::hash_of(key));
        let [first, second] = buckets.get(home)?;
        let [third, fourth] = buckets.get(home ^ 1)?;
        Some([first, second, third, fourth])
    }

    /// Puts a pre-token of at most [`WriteOnce::room`] ids there, unless it is known or there is no place.
    pub fn insert(&self, key: &[u64; KEY], ids: &[TokenId], share: &mut Share) {
        self.put(&entry::entry_of(key, ids, self.width), share);
    }

    /// The same for one whose ids stand elsewhere.
    pub fn insert_spilled(&self, key: &[u64; KEY], start: u32, end: u32, share: &mut Share) {
        self.put(&entry::spilled_entry(key, start, end), share);
    }

    fn put(&self, entry: &[u64; SIZE], share: &mut Share) {
        let key = &entry::key_of(entry);
        for place in self.places(key).into_iter().flatten() {
            if place[KEY - 1].load(Relaxed) == 0
                && place[KEY - 1].compare_exchange(0, CLAIMED, Relaxed, Relaxed).is_ok()
            {
                let others = (0..SIZE).filter(|&word| word != KEY - 1);
                others.for_each(|word| place[word].store(entry[word], Relaxed));
                place[KEY - 1].store(entry[KEY - 1], Release);
                share.n_new += 1;
                return;
            }
            if is_of(place, key) {
                return;
            }
        }
        share.n_lost += 1;
    }

    /// Whether an empty table should take the place of this one: as many words found no place as an eighth of it. Each was
    /// merged at each meeting, which has cost as much as merging the frequent words anew.
    pub fn is_full(&self) -> bool {
        4 * self.n_lost.load(Relaxed) > self.n_buckets
    }

    /// An empty one if this is full, or this.
    pub fn next(self: &Arc<Self>) -> Arc<Self> {
        if self.is_full() { self.emptied() } else { self.clone() }
    }

    pub fn emptied(&self) -> Arc<Self> {
        Arc::new(Self::new(self.width, self.n_buckets))
    }

    /// Visits a part of the pre-tokens, each once, in no order.
    pub fn for_each(&self, part: usize, n_parts: usize, mut visit: impl FnMut(&[u8], Found)) {
        let (pairs, _) = self.buckets().as_chunks::<2>();
        let of_parts = |parts: usize| pairs.len() * parts / n_parts;
        for [first, second] in &pairs[of_parts(part)..of_parts(part + 1)] {
            let entries = [&first[0], &first[1], &second[0], &second[1]].map(read::<KEY, SIZE>);
            for (number, entry) in entries.iter().enumerate() {
                let Some(found) = entry::found_in::<KEY, SIZE>(entry, self.width) else { continue };
                let key: [u64; KEY] = entry::key_of(entry);
                if entries[..number].iter().all(|other| entry::key_of(other) != key || count_of(other[KEY - 1]) == 0) {
                    let (bytes, length) = entry::pretoken_of::<KEY, SIZE>(entry);
                    visit(&bytes[..length], found);
                }
            }
        }
    }

    /// Calls the bucket of a hash into the caches.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(self.buckets(), hash);
    }
}

/// The first bucket of a pre-token with this hash.
#[inline(always)]
fn place_of<const SIZE: usize>(buckets: &[Bucket<SIZE>], hash: u64) -> usize {
    hash as usize & buckets.len().wrapping_sub(1)
}

/// Calls it into the caches.
#[inline(always)]
pub(super) fn prefetch<const SIZE: usize>(buckets: &[Bucket<SIZE>], hash: u64) {
    memory::prefetch(buckets, place_of(buckets, hash));
}

/// The words of ids of a pre-token of at most 15 bytes in its first bucket, and how many ids there are: none, or too many,
/// where they are not its own.
#[inline(always)]
pub(super) fn find_first(buckets: &[Bucket<4>], hash: u64, key: &[u64; 2]) -> ([u64; 2], usize) {
    let Some(bucket) = buckets.get(place_of(buckets, hash)) else { return ([0; 2], 0) };
    // The number of ids is shifted out. (A mask is an instruction that waits for the word before.)
    let look = |entry: &[AtomicU64; 4]| {
        let last = entry[1].load(Acquire);
        ((entry[0].load(Relaxed) ^ key[0]) | (last ^ key[1]) << (64 - COUNT_SHIFT) == 0, count_of(last))
    };
    let entry = &bucket[usize::from(!look(&bucket[0]).0)];
    let (is_same, count) = look(entry);
    ([entry[2].load(Relaxed), entry[3].load(Relaxed)], if is_same { count } else { 0 })
}

#[inline(always)]
fn is_of<const KEY: usize, const SIZE: usize>(entry: &[AtomicU64; SIZE], key: &[u64; KEY]) -> bool {
    let last = entry[KEY - 1].load(Acquire);
    let differs = (0..KEY - 1)
        .fold(last & KEY_BITS ^ key[KEY - 1], |differs, word| differs | (entry[word].load(Relaxed) ^ key[word]));
    differs == 0 && count_of(last) != 0
}

/// An entry, which is empty as long as it is being written.
fn read<const KEY: usize, const SIZE: usize>(entry: &[AtomicU64; SIZE]) -> [u64; SIZE] {
    let last = entry[KEY - 1].load(Acquire);
    if count_of(last) == 0 {
        return [0; SIZE];
    }
    std::array::from_fn(|word| if word == KEY - 1 { last } else { entry[word].load(Relaxed) })
}

#[cfg(test)]
mod tests {
    use super::super::entry::{SHORT_BYTES, short_key};
    use super::*;

    /// A word, and ids that are its number's alone: one to fifteen of them.
    fn word_of(number: u32) -> (String, Vec<TokenId>) {
        let ids = (0..1 + number % 15).map(|place| (number.wrapping_mul(2_654_435_761) >> 16) ^ place);
        (format!("{number:010}"), ids.collect())
    }

    fn key_of(word: &str) -> [u64; 2] {
        assert!(word.len() <= SHORT_BYTES);
        short_key(word.as_bytes(), 0, word.len())
    }

    fn insert(words: &WriteOnce<2, 4>, number: u32, share: &mut Share) {
        let (word, ids) = word_of(number);
        match ids.len() <= words.room() {
            true => words.insert(&key_of(&word), &ids, share),
            false => words.insert_spilled(&key_of(&word), number, number + 9, share),
        }
    }

    /// Whether a word is there, with what it was put there with.
    fn has(words: &WriteOnce<2, 4>, number: u32) -> bool {
        let (word, ids) = word_of(number);
        let found = words.get(&key_of(&word));
        assert_eq!(found.is_some(), words.has(&key_of(&word)));
        match found {
            None => false,
            Some(Found::Ids(found, count)) => found[..count] == ids,
            Some(Found::Spilled(start, end)) => (start, end) == (number, number + 9) && ids.len() > words.room(),
        }
    }

    #[test]
    fn threads_find_what_others_put_there_or_nothing() {
        const N_WORDS: u32 = 20_000;
        for (width, n_buckets) in [(Width::Narrow, 1 << 15), (Width::Wide, 1 << 13), (Width::Wide, 1 << 11)] {
            let words = WriteOnce::<2, 4>::new(width, n_buckets);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let words = &words;
                    scope.spawn(move || {
                        let mut share = Share::default();
                        for step in 0..N_WORDS {
                            // All meet the same words, in another order each.
                            let number = (step * 7919 + thread * 5000) % N_WORDS;
                            let (word, _) = word_of(number);
                            if words.has(&key_of(&word)) {
                                assert!(has(words, number), "{word}");
                            } else {
                                insert(words, number, &mut share);
                            }
                        }
                        words.count(&mut share);
                    });
                }
            });
            let n_found = (0..N_WORDS).filter(|&number| has(&words, number)).count();
            let mut visited = Vec::new();
            for part in 0..3 {
                words.for_each(part, 3, |word, _| visited.push(word.to_vec()));
            }
            assert_eq!(visited.len(), n_found);
            visited.sort();
            visited.dedup();
            assert_eq!(visited.len(), n_found, "each once");
            assert!(words.len() >= n_found, "{} {n_found}", words.len());
            assert!(n_found == N_WORDS as usize || words.n_lost.load(Relaxed) > 0);
        }
    }

    /// The loop looks into the first bucket alone; what it finds is what the other way finds.
    #[test]
    fn the_first_bucket_says_the_same() {
        let words = WriteOnce::<2, 4>::new(Width::Wide, 1 << 10);
        let mut share = Share::default();
        (0..2000).for_each(|number| insert(&words, number, &mut share));
        let mut n_first = 0;
        for number in 0..3000 {
            let (word, ids) = word_of(number);
            let key = key_of(&word);
            let ([first, _], count) = find_first(words.buckets(), entry::hash_of(&key), &key);
            if count != 0 {
                n_first += 1;
                assert!(has(&words, number));
                assert_eq!(first as u32, if ids.len() <= words.room() { ids[0] } else { number });
            }
        }
        assert!(n_first > 1000, "{n_first}");
    }

    #[test]
    fn an_empty_table_comes_when_many_words_are_lost_and_not_before() {
        const N_BUCKETS: usize = 1 << 9;
        let mut words = Arc::new(WriteOnce::<2, 4>::new(Width::Narrow, N_BUCKETS));
        let mut share = Share::default();
        let mut n_emptied = 0;
        for number in 0..100_000 {
            insert(&words, number, &mut share);
            words.count(&mut share);
            assert!(Arc::ptr_eq(&words, &words.next()) || words.is_full());
            if words.is_full() {
                assert!(words.len() > N_BUCKETS, "{} words", words.len());
                words = words.next();
                n_emptied += 1;
                assert_eq!((words.n_buckets, words.len(), words.is_full()), (N_BUCKETS, 0, false));
            }
        }
        assert!((1..100_000 / N_BUCKETS).contains(&n_emptied), "{n_emptied}");
    }
}
