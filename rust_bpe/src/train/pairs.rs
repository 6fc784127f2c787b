//! The pairs that may still be merged: how often each occurs, and where.
//!
//! A pair of neighbours (x, y) can appear only at the merge that makes the newer of x and y; from then on merges only
//! take occurrences away. So a pair's list of places is written once, in the order of the text, and some of its
//! places have gone stale when it is read; its count is always exact. And a pair that occurs less than the threshold
//! when it appears can be left out until the threshold is lowered.
//!
//! A table of its own, because most of the time goes into subtracting from pairs that are nowhere near the caches: key
//! and count share 16 bytes of one cache line, and the lists lie end to end in one array.

use std::ops::Range;
use std::sync::atomic::AtomicU32;

use super::text::Place;
use crate::memory;

/// A pair of tokens, left and right.
pub type Pair = (u32, u32);

pub struct Pairs {
    /// Pairs that occur less often are of no interest (those that fell below it go away in time).
    threshold: u64,
    /// A power of two of them, at most half of them taken; linear probing.
    slots: Vec<Slot>,
    /// The places of the pair in the slot of the same index.
    lists: Vec<Range<usize>>,
    /// 64 - log2(slots).
    shift: u32,
    n_taken: usize,
    places: Vec<Place>,
    /// So many of `places` nobody will read again.
    n_dead_places: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    /// Occurrences now, weighted; 0 once it is merged.
    count: u64,
}

const FREE: Slot = Slot { key: u64::MAX, count: 0 };
const FIRST_SIZE_LOG2: u32 = 10;

impl Pairs {
    pub fn new(threshold: u64) -> Self {
        Pairs::with_size_log2(FIRST_SIZE_LOG2, threshold)
    }

    fn with_size_log2(size_log2: u32, threshold: u64) -> Self {
        Pairs {
            threshold,
            slots: memory::filled(FREE, 1 << size_log2),
            lists: vec![0..0; 1 << size_log2],
            shift: 64 - size_log2,
            n_taken: 0,
            places: Vec::new(),
            n_dead_places: 0,
        }
    }

    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Occurrences of a pair now; 0 when it is not kept.
    pub fn count(&self, pair: Pair) -> u64 {
        self.slots[self.find(key(pair))].count
    }

    /// Calls what is known of a pair into the caches.
    #[inline(always)]
    pub fn foresee(&self, pair: Pair) {
        let home = self.home(key(pair));
        memory::prefetch(&self.slots, home);
        memory::prefetch(&self.lists, home);
    }

    /// The places of a pair; none when it is not kept.
    pub fn list(&self, pair: Pair) -> Range<usize> {
        self.lists[self.find(key(pair))].clone()
    }

    /// Adds a new pair and returns where its `n_places` places are to be written, by [`Pairs::set_place`]. What is
    /// returned holds until the next [`Pairs::reserve_places`], which comes before.
    pub fn insert(&mut self, pair: Pair, count: u64, n_places: usize) -> usize {
        if self.n_taken * 2 >= self.slots.len() {
            self.grow();
        }
        let start = self.places.len();
        self.places.resize(start + n_places, 0);
        self.put(Slot { key: key(pair), count }, start..start + n_places);
        start
    }

    /// Makes room for `n` places: by moving the lists together when a quarter of the places is dead, else by growing by
    /// a quarter, so that memory stays near what is alive.
    pub fn reserve_places(&mut self, n: usize) {
        if n <= self.places.capacity() - self.places.len() {
            return;
        }
        if self.n_dead_places * 4 > self.places.len() {
            self.compact();
        }
        if self.places.capacity() == 0 {
            self.places = memory::with_capacity(n);
        } else if n > self.places.capacity() - self.places.len() {
            self.places.reserve_exact(n.max(self.places.len() / 4));
        }
    }

    #[inline(always)]
    pub fn set_place(&mut self, index: usize, place: Place) {
        self.places[index] = place;
    }

    /// Lets several threads write places, as [`Pairs::set_place`] does.
    pub fn write_places(&mut self, write: impl FnOnce(&[AtomicU32])) {
        // Both ways stay where they are in memory.
        let places: Vec<AtomicU32> = std::mem::take(&mut self.places).into_iter().map(AtomicU32::new).collect();
        write(&places);
        self.places = places.into_iter().map(AtomicU32::into_inner).collect();
    }

    /// Takes occurrences away from those of the pairs that are kept.
    pub fn subtract(&mut self, changes: &[(Pair, u64)]) {
        let mut homes = [(0, false); 64];
        for changes in changes.chunks(homes.len()) {
            // First a loop without branches, so that many cache misses are under way at once.
            for (home, &(pair, _)) in homes.iter_mut().zip(changes) {
                let index = self.home(key(pair));
                *home = (index, self.slots[index].key == key(pair));
            }
            for (&(home, is_there), &(pair, count)) in homes.iter().zip(changes) {
                let index = if is_there { home } else { self.find(key(pair)) };
                if self.slots[index].key == key(pair) {
                    self.slots[index].count -= count;
                }
            }
        }
    }

    /// Marks a pair as merged and returns the places it had, for [`Pairs::places`].
    pub fn remove(&mut self, pair: Pair) -> Range<usize> {
        let index = self.find(key(pair));
        self.slots[index].count = 0;
        let list = std::mem::take(&mut self.lists[index]);
        self.n_dead_places += list.len();
        list
    }

    pub fn places(&self, list: Range<usize>) -> &[Place] {
        &self.places[list]
    }

    /// The slot of a key, or the free one where it would be.
    #[inline]
    fn find(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut index = self.home(key);
        while self.slots[index & mask].key != key && self.slots[index & mask].key != FREE.key {
            index += 1;
        }
        index & mask
    }

    /// The slot to look at first: Fibonacci hashing (Knuth, volume 3, section 6.4), by 2^64 over the golden ratio.
    #[inline(always)]
    fn home(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    fn put(&mut self, slot: Slot, list: Range<usize>) {
        let index = self.find(slot.key);
        self.slots[index] = slot;
        self.lists[index] = list;
        self.n_taken += 1;
    }

    /// Makes the table twice as large, or leaves it when enough pairs are of no interest any more.
    #[cold]
    fn grow(&mut self) {
        let n_live = self.slots.iter().filter(|slot| slot.count >= self.threshold).count();
        let size_log2 = 64 - self.shift + u32::from(n_live * 4 > self.slots.len());
        let old = std::mem::replace(self, Pairs::with_size_log2(size_log2, self.threshold));
        self.places = old.places;
        self.n_dead_places = old.n_dead_places;
        for (slot, list) in old.slots.into_iter().zip(old.lists) {
            if slot.count >= self.threshold {
                self.put(slot, list);
            } else {
                self.n_dead_places += list.len();
            }
        }
    }

    #[cold]
    fn compact(&mut self) {
        let mut live: Vec<usize> = (0..self.slots.len()).filter(|&i| !self.lists[i].is_empty()).collect();
        live.sort_unstable_by_key(|&i| self.lists[i].start);
        let mut end = 0;
        for i in live {
            let list = std::mem::take(&mut self.lists[i]);
            if self.slots[i].count >= self.threshold {
                self.lists[i] = end..end + list.len();
                self.places.copy_within(list, end);
                end = self.lists[i].end;
            }
        }
        self.places.truncate(end);
        self.n_dead_places = 0;
    }
}

fn key((left, right): Pair) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}
