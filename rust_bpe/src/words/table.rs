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
}

/// A batch that is being filled: a value of its own, so that all of it stays in registers.
pub struct Batch<'t, K> {
    slots: &'t [Slot<K>],
    shift: u32,
    keys: &'t mut [(K, u64); BATCH],
    n_keys: usize,
}

/// 32 bytes for a 16-byte key: two in a cache line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
struct Slot<K> {
    key: K,
    count: u64,
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
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The batch, to be filled with at most [`BATCH`] keys.
    pub fn batch(&mut self) -> Batch<'_, K> {
        Batch { slots: &self.slots, shift: self.shift, keys: &mut self.batch, n_keys: 0 }
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

    /// Counts a key wherever it is; there is room for it.
    fn add_past_home(&mut self, key: K, hash: u64, count: u64) {
        let mask = self.slots.len() - 1;
        let mut index = (hash >> self.shift) as usize;
        loop {
            let slot = &mut self.slots[index & mask];
            if slot.key == key {
                slot.count = slot.count.saturating_add(count);
                return;
            }
            if slot.key.is_empty() {
                *slot = Slot { key, count };
                self.len += 1;
                return;
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
        self.batch = old.batch;
        for slot in old.slots.into_iter().filter(|slot| !slot.key.is_empty()) {
            self.add_past_home(slot.key, slot.key.hash(), slot.count);
        }
    }
}
