//! A counting table for keys held by value: open addressing, linear probing, at most half full, never a deletion.
//!
//! The slot is found by the hash's high bits, so walking the slots in order is walking the words by hash.

use super::key::Key;

/// Keys and their counts.
pub struct Table<K> {
    /// A power of two of them.
    slots: Vec<Slot<K>>,
    /// 64 - log2(slots).
    shift: u32,
    len: usize,
}

/// 32 bytes for a 16-byte key: never across a cache line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
struct Slot<K> {
    key: K,
    count: u64,
}

const FIRST_SIZE_LOG2: u32 = 10;
/// Growing fourfold keeps the words rehashed on the way to a third of the last table's.
const GROWTH_LOG2: u32 = 2;

impl<K: Key> Default for Table<K> {
    fn default() -> Self {
        Table { slots: vec![Slot::default(); 1 << FIRST_SIZE_LOG2], shift: 64 - FIRST_SIZE_LOG2, len: 0 }
    }
}

impl<K: Key> Table<K> {
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub fn add(&mut self, key: K, count: u64) {
        let mask = self.slots.len() - 1;
        let mut index = (key.hash() >> self.shift) as usize;
        loop {
            let slot = &mut self.slots[index & mask];
            if slot.key == key {
                slot.count = slot.count.saturating_add(count);
                return;
            }
            if slot.key.is_empty() {
                *slot = Slot { key, count };
                self.len += 1;
                if self.len * 2 > self.slots.len() {
                    self.grow();
                }
                return;
            }
            index += 1;
        }
    }

    pub fn absorb(&mut self, other: &Table<K>) {
        for slot in other.slots.iter().filter(|slot| !slot.key.is_empty()) {
            self.add(slot.key, slot.count);
        }
    }

    pub fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        for slot in self.slots.iter().filter(|slot| !slot.key.is_empty()) {
            slot.key.with_bytes(|word| visit(word, slot.count));
        }
    }

    #[cold]
    fn grow(&mut self) {
        let size_log2 = 64 - self.shift + GROWTH_LOG2;
        let mut larger = Table { slots: vec![Slot::default(); 1 << size_log2], shift: 64 - size_log2, len: 0 };
        larger.absorb(self);
        *self = larger;
    }
}
