//! The tables of pre-tokens met before, for the lengths that nearly all have: a look is one cache line.
//!
//! The key is the pre-token itself, so an entry never stands for another. A bucket has two entries, and two buckets help each
//! other out; a table doubles while it fills, up to a bound. The loop over pre-tokens looks at the first bucket alone.

use super::entry::{self, Found, KEY_BITS, Width, count_of};
use crate::memory;
use crate::token::TokenId;

/// Up to 15 bytes and 16 bytes of ids in 32 bytes; 2,097,152 words in 64 MiB at most.
pub(super) type ShortWords = Words<2, 4, { 1 << 20 }>;

/// Up to 31 bytes and 32 bytes of ids in 64 bytes; 262,144 words in 16 MiB at most. One pre-token in 20 of multilingual
/// text.
pub(super) type MediumWords = Words<4, 8, { 1 << 17 }>;

/// `KEY` words of key and ids in the rest of `SIZE` words an entry; at most `MOST_BUCKETS`, a power of two.
#[derive(Debug)]
pub(super) struct Words<const KEY: usize, const SIZE: usize, const MOST_BUCKETS: usize> {
    pub width: Width,
    /// None until the first entry; a power of two then.
    buckets: Vec<Bucket<SIZE>>,
    n_entries: usize,
}

/// On a boundary of cache lines. In an empty entry all is zero.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket<const SIZE: usize>([[u64; SIZE]; 2]);

const FEWEST_BUCKETS: usize = 1 << 11;

/// How many buckets ahead the new ones are called while a table grows.
const AHEAD: usize = 16;

impl<const KEY: usize, const SIZE: usize, const MOST_BUCKETS: usize> Default for Words<KEY, SIZE, MOST_BUCKETS> {
    fn default() -> Self {
        Self { width: Width::default(), buckets: Vec::new(), n_entries: 0 }
    }
}

impl<const KEY: usize, const SIZE: usize, const MOST_BUCKETS: usize> Words<KEY, SIZE, MOST_BUCKETS> {
    /// Ids that an entry has room for.
    pub fn room(&self) -> usize {
        entry::room::<KEY, SIZE>(self.width)
    }

    pub fn len(&self) -> usize {
        self.n_entries
    }

    /// What is known of a pre-token. One that stands in its second bucket moves to the first.
    pub fn get(&mut self, key: &[u64; KEY]) -> Option<Found> {
        let home = self.bucket_of(key);
        let is_same = |entry: &[u64; SIZE]| Self::is_of(entry, key);
        // None before the first is put there.
        if let Some(entry) = self.buckets.get(home)?.0.iter().find(|entry| is_same(entry)) {
            return self.found(entry);
        }
        if self.has_room(home) {
            return None;
        }
        let place = self.buckets[home ^ 1].0.iter().position(is_same)?;
        let entry = self.buckets[home ^ 1].0[place];
        self.buckets[home ^ 1].0[place] = std::mem::replace(&mut self.buckets[home].0[1], entry);
        self.found(&entry)
    }

    /// Whether a pre-token is known.
    pub fn has(&self, key: &[u64; KEY]) -> bool {
        let home = self.bucket_of(key);
        let is_in = |bucket: &Bucket<SIZE>| bucket.0.iter().any(|entry| Self::is_of(entry, key));
        let Some(bucket) = self.buckets.get(home) else { return false };
        is_in(bucket) || !self.has_room(home) && is_in(&self.buckets[home ^ 1])
    }

    fn is_of(entry: &[u64; SIZE], key: &[u64; KEY]) -> bool {
        let last = entry[KEY - 1];
        entry[..KEY - 1] == key[..KEY - 1] && last & KEY_BITS == key[KEY - 1] && count_of(last) != 0
    }

    /// Visits all pre-tokens, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], Found)) {
        for entry in self.buckets.iter().flat_map(|bucket| &bucket.0) {
            let Some(found) = self.found(entry) else { continue };
            let (bytes, length) = entry::pretoken_of::<KEY, SIZE>(entry);
            visit(&bytes[..length], found);
        }
    }

    fn found(&self, entry: &[u64; SIZE]) -> Option<Found> {
        entry::found_in::<KEY, SIZE>(entry, self.width)
    }

    /// Puts a pre-token of at most [`Words::room`] ids first in its bucket; the oldest one there goes to the other bucket
    /// of the pair, or is dropped.
    pub fn insert(&mut self, key: &[u64; KEY], ids: &[TokenId]) {
        self.put(entry::entry_of(key, ids, self.width));
    }

    /// The same for one whose ids stand elsewhere.
    pub fn insert_spilled(&mut self, key: &[u64; KEY], start: u32, end: u32) {
        self.put(entry::spilled_entry(key, start, end));
    }

    /// Makes the table as large as so many more entries would make it.
    pub fn reserve(&mut self, n_entries: usize) {
        let n_buckets = (2 * (self.n_entries + n_entries)).next_power_of_two();
        if n_buckets > self.buckets.len() {
            self.resize(n_buckets);
        }
    }

    pub fn clear(&mut self) {
        *self = Self { width: self.width, ..Self::default() };
    }

    fn put(&mut self, entry: [u64; SIZE]) {
        // A quarter full at most: of 130,545 words one in ten has no place in its first bucket at half, one in thirty at a
        // quarter.
        if 2 * self.n_entries >= self.buckets.len() && self.buckets.len() < MOST_BUCKETS {
            self.resize(2 * self.buckets.len());
        }
        self.put_entry(entry);
    }

    fn put_entry(&mut self, entry: [u64; SIZE]) {
        let home = self.bucket_of(&entry::key_of(&entry));
        let [newer, older] = &mut self.buckets[home].0;
        let moved = std::mem::replace(older, std::mem::replace(newer, entry));
        self.n_entries += usize::from(count_of(moved[KEY - 1]) == 0);
        // What has no place in this bucket any more has one in the other, if that has room.
        if count_of(moved[KEY - 1]) != 0
            && let Some(room) = self.buckets[home ^ 1].0.iter_mut().find(|entry| count_of(entry[KEY - 1]) == 0)
        {
            *room = moved;
            self.n_entries += 1;
        }
    }

    #[cold]
    fn resize(&mut self, n_buckets: usize) {
        let n_buckets = n_buckets.clamp(FEWEST_BUCKETS, MOST_BUCKETS);
        let old = std::mem::replace(&mut self.buckets, memory::filled(Bucket([[0; SIZE]; 2]), n_buckets));
        self.n_entries = 0;
        let n_old = old.len();
        for (index, Bucket([newer, older])) in old.into_iter().enumerate() {
            // Where the entries of a bucket go when the table doubles; nothing is there yet, but it is memory.
            memory::prefetch(&self.buckets, index + AHEAD);
            memory::prefetch(&self.buckets, index + AHEAD + n_old);
            for entry in [older, newer] {
                if count_of(entry[KEY - 1]) != 0 {
                    self.put_entry(entry);
                }
            }
        }
    }

    #[inline(always)]
    fn bucket_of(&self, key: &[u64; KEY]) -> usize {
        self.bucket_of_hash(Self::hash(key))
    }

    #[inline(always)]
    fn bucket_of_hash(&self, hash: u64) -> usize {
        hash as usize & self.buckets.len().wrapping_sub(1)
    }

    #[inline(always)]
    pub fn hash(key: &[u64; KEY]) -> u64 {
        entry::hash_of(key)
    }

    /// Whether a bucket is not full. None of its pre-tokens ever had to move to the other one of the pair then: what is
    /// there stays, or makes place for another.
    #[inline(always)]
    fn has_room(&self, bucket: usize) -> bool {
        self.buckets[bucket].0.iter().any(|entry| count_of(entry[KEY - 1]) == 0)
    }

    /// Calls the bucket of a hash into the caches.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        memory::prefetch(&self.buckets, self.bucket_of_hash(hash));
    }

    /// The two entries of the bucket where a key of this hash would be; None in a table without entries.
    #[inline(always)]
    pub fn bucket(&self, hash: u64) -> Option<&[[u64; SIZE]; 2]> {
        self.buckets.get(self.bucket_of_hash(hash)).map(|bucket| &bucket.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{medium_key, short_key};
    use super::*;

    #[test]
    fn a_full_bucket_leaves_its_oldest_word_to_the_other_one() {
        let mut words = ShortWords::default();
        let key = |number: u32| short_key(format!("{number:010}").as_bytes(), 0, 10);
        let n_words = 100_000;
        (0..n_words).for_each(|number| words.insert(&key(number), &[number % 50_000]));
        for _ in 0..2 {
            let found = |number: &u32| match (words.has(&key(*number)), words.get(&key(*number))) {
                (true, Some(Found::Ids(ids, 1))) if ids[0] == number % 50_000 => true,
                (false, None) => false,
                other => panic!("{number}: {other:?}"),
            };
            let n_found = (0..n_words).filter(found).count();
            // Of two entries in a bucket alone one word in thirty would be lost.
            assert!(n_found > 99_000, "{n_found}");
            assert!(words.len() >= n_found && words.len() <= n_words as usize);
        }
        let mut n_visited = 0;
        words.for_each(|_, _| n_visited += 1);
        assert_eq!(n_visited, words.len());
    }

    #[test]
    fn what_is_found_is_what_was_put_there_last() {
        for width in [Width::Narrow, Width::Wide] {
            let mut short = ShortWords { width, ..ShortWords::default() };
            let mut medium = MediumWords { width, ..MediumWords::default() };
            let most = if width == Width::Narrow { u32::from(u16::MAX) } else { 2_000_000 };
            assert_eq!(short.get(&short_key(b"a", 0, 1)), None);
            assert_eq!(medium.get(&medium_key(&[0; 16])), None);
            for number in 0..200_000u32 {
                let word = format!("{number:020}");
                let (short_word, medium_word) = (&word.as_bytes()[10..], word.as_bytes());
                let ids: Vec<TokenId> =
                    (0..=number % short.room() as u32).map(|place| (number + place) % most).collect();
                let key = short_key(short_word, 0, 10);
                short.insert(&key, &ids);
                match short.get(&key) {
                    Some(Found::Ids(found, count)) => assert_eq!(found[..count], ids),
                    other => panic!("{other:?}"),
                }
                assert_eq!(medium.get(&medium_key(medium_word)), None);
                medium.insert_spilled(&medium_key(medium_word), number, number + 9);
                assert_eq!(medium.get(&medium_key(medium_word)), Some(Found::Spilled(number, number + 9)));
                medium.insert(&medium_key(&medium_word[..19]), &[most; 8]);
                match medium.get(&medium_key(&medium_word[..19])) {
                    Some(Found::Ids(found, 8)) => assert_eq!(found[..8], [most; 8]),
                    other => panic!("{other:?}"),
                }
            }
            medium.insert(&medium_key(&[0; 16]), &[1]);
            assert!(medium.get(&medium_key(&[0; 16])).is_some());
            medium.clear();
            assert_eq!(medium.get(&medium_key(b"00000000000000199999")), None);
            assert_eq!(medium.width, width);
        }
    }
}
