//! A counting table for keys held by value: open addressing, linear probing, at most half full, never a deletion.
//!
//! The slot is found by the hash's high bits, so walking the slots in order is walking the words by hash. Words of a
//! text come in batches: one loop makes keys and hashes, another one counts. Neither has a branch that depends on the
//! data and is hard to foresee, so the processor has many cache misses under way at once.

use super::key::Key;
use crate::memory;

/// Keys and their counts.
pub struct Table<K> {
    /// A power of two of them.
    slots: Vec<Slot<K>>,
    /// 64 - log2(slots).
    shift: u32,
    len: usize,
    /// Keys to be counted once each, with their hashes.
    batch: Box<[(K, u64); BATCH]>,
    /// Where each of them stands among the pre-tokens of all lengths; for [`Table::note_batch`] alone.
    places: Box<[u16; BATCH]>,
}

/// A batch that is being filled: a value of its own, so that all of it stays in registers.
pub struct Batch<'t, K> {
    slots: &'t [Slot<K>],
    shift: u32,
    keys: &'t mut [(K, u64); BATCH],
    places: &'t mut [u16; BATCH],
    n_keys: usize,
}

/// 32 bytes for a 16-byte key: two in a cache line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
struct Slot<K> {
    key: K,
    count: u64,
    /// Keys are numbered from 0 as they come.
    number: u32,
}

/// The most keys that are pushed before they are counted.
pub const BATCH: usize = 512;
const FIRST_SIZE_LOG2: u32 = 11;

impl<K: Key> Batch<'_, K> {
    /// Adds a key, and calls its slot into the caches: multilingual text is counted in two thirds of the time, English in
    /// the same.
    #[inline(always)]
    pub fn push(&mut self, key: K) {
        let hash = key.hash();
        memory::prefetch(self.slots, (hash >> self.shift) as usize);
        self.keys[self.n_keys % BATCH] = (key, hash);
        self.n_keys += 1;
    }

    /// The same for a key whose number is to be noted at `place`.
    #[inline(always)]
    pub fn push_at(&mut self, key: K, place: usize) {
        self.places[self.n_keys % BATCH] = place as u16; // places are below `BATCH`
        self.push(key);
    }

    pub fn len(&self) -> usize {
        self.n_keys
    }
}

impl<K: Key> Default for Table<K> {
    fn default() -> Self {
        Table::with_size_log2(FIRST_SIZE_LOG2)
    }
}

impl<K: Key> Table<K> {
    fn with_size_log2(size_log2: u32) -> Self {
        Table {
            slots: memory::filled(Slot::default(), 1 << size_log2),
            shift: 64 - size_log2,
            len: 0,
            batch: Box::new([(K::default(), 0); BATCH]),
            places: Box::new([0; BATCH]),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The batch, to be filled with at most [`BATCH`] keys.
    pub fn batch(&mut self) -> Batch<'_, K> {
        Batch { slots: &self.slots, shift: self.shift, keys: &mut self.batch, places: &mut self.places, n_keys: 0 }
    }

    /// Counts the first `n_keys` keys of the batch.
    pub fn count_batch(&mut self, n_keys: usize) {
        self.reserve(n_keys);
        for i in 0..n_keys {
            let (key, hash) = self.batch[i % BATCH];
            let slot = &mut self.slots[(hash >> self.shift) as usize];
            if slot.key == key {
                slot.count += 1;
            } else {
                self.add_past_home(key, hash, 1);
            }
        }
    }

    /// The same, each key `count` times, and writes their numbers, with the bits of `mark`, to their places in `numbers`.
    pub fn note_batch(&mut self, n_keys: usize, count: u64, mark: u32, numbers: &mut [u32]) {
        self.reserve(n_keys);
        for i in 0..n_keys {
            let (key, hash) = self.batch[i % BATCH];
            let slot = &mut self.slots[(hash >> self.shift) as usize];
            let number = if slot.key == key {
                slot.count += count;
                slot.number
            } else {
                self.add_past_home(key, hash, count)
            };
            if let Some(place) = numbers.get_mut(usize::from(self.places[i % BATCH])) {
                *place = number | mark;
            }
        }
    }

    pub fn add(&mut self, key: K, count: u64) {
        self.reserve(1);
        self.add_past_home(key, key.hash(), count);
    }

    /// Visits the keys of one of `n_shards` shards, which are ranges of the hash: `visit(hash, key, count)`.
    pub fn for_each_in_shard(&self, shard: usize, n_shards: usize, mut visit: impl FnMut(u64, K, u64)) {
        let shard_of = |hash: u64| ((u128::from(hash) * n_shards as u128) >> 64) as usize;
        let (first, end) = (self.slots.len() * shard / n_shards, (self.slots.len() * (shard + 1)).div_ceil(n_shards));
        // Keys that were not put home stand behind it, without a gap, around the end of the table too.
        let (before, behind) = self.slots.split_at(end);
        let displaced = behind.iter().chain(&before[..first]).take_while(|slot| !slot.key.is_empty());
        let own = before[first..].iter().filter(|slot| !slot.key.is_empty());
        for slot in own.chain(displaced) {
            let hash = slot.key.hash();
            if shard_of(hash) == shard {
                visit(hash, slot.key, slot.count);
            }
        }
    }

    /// Visits all keys with their numbers.
    pub fn for_each(&self, mut visit: impl FnMut(u32, K)) {
        let filled = self.slots.iter().filter(|slot| !slot.key.is_empty());
        filled.for_each(|slot| visit(slot.number, slot.key));
    }

    /// Counts a key wherever it is; there is room for it. Returns its number.
    fn add_past_home(&mut self, key: K, hash: u64, count: u64) -> u32 {
        let mask = self.slots.len() - 1;
        let mut index = (hash >> self.shift) as usize;
        loop {
            let slot = &mut self.slots[index & mask];
            if slot.key == key {
                slot.count = slot.count.saturating_add(count);
                return slot.number;
            }
            if slot.key.is_empty() {
                let number = self.len as u32; // noted words are fewer than 2^30; other counters do not ask
                *slot = Slot { key, count, number };
                self.len += 1;
                return number;
            }
            index += 1;
        }
    }

    /// Makes room for `n` more keys.
    #[inline]
    fn reserve(&mut self, n: usize) {
        if (self.len + n) * 2 > self.slots.len() {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let larger = Table::with_size_log2(64 - self.shift + 1);
        let old = std::mem::replace(self, larger);
        (self.batch, self.places, self.len) = (old.batch, old.places, old.len);
        let mask = self.slots.len() - 1;
        for slot in old.slots.into_iter().filter(|slot| !slot.key.is_empty()) {
            let mut index = (slot.key.hash() >> self.shift) as usize;
            while !self.slots[index & mask].key.is_empty() {
                index += 1;
            }
            self.slots[index & mask] = slot;
        }
    }
}
