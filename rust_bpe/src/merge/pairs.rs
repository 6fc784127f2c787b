//! The rank of each pair that merges: a grid for the pairs of low ids, a hash table for the others.

use super::NO_RANK;
use crate::token::TokenId;

/// Ids below this have a cell for each pair: for the usual numbering all pairs of bytes, which every pre-token starts
/// with, in 256 KiB.
const GRID_IDS: u32 = 256;

const ID_BITS: u32 = 21;
const EMPTY: u64 = u64::MAX;

/// (left, right) -> rank. An entry of the hash table is one word: 21 bits each of left, right and rank.
#[derive(Clone, Debug)]
pub(crate) struct PairTable {
    grid: Box<[u32]>,
    slots: Vec<u64>,
    shift: u32,
    n_pairs: usize,
}

impl PairTable {
    /// Makes room for `n_pairs`; more may be inserted.
    pub fn with_capacity(n_pairs: usize) -> Self {
        let n_slots = (n_pairs * 2).next_power_of_two().max(1024);
        Self {
            grid: vec![NO_RANK; (GRID_IDS * GRID_IDS) as usize].into(),
            slots: vec![EMPTY; n_slots],
            shift: 64 - n_slots.trailing_zeros(),
            n_pairs: 0,
        }
    }

    /// Gives a pair a rank. Ids and ranks must be below [`NO_RANK`]; a pair may be inserted once.
    pub fn insert(&mut self, left: TokenId, right: TokenId, rank: u32) {
        debug_assert!(left < NO_RANK && right < NO_RANK && rank < NO_RANK);
        if left < GRID_IDS && right < GRID_IDS {
            self.grid[(left * GRID_IDS + right) as usize] = rank;
            return;
        }
        if (self.n_pairs + 1) * 2 > self.slots.len() {
            self.grow();
        }
        self.n_pairs += 1;
        self.place(pair(left, right) << ID_BITS | rank as u64);
    }

    /// The rank of a pair, or [`NO_RANK`].
    #[inline]
    pub fn rank(&self, left: TokenId, right: TokenId) -> u32 {
        if left < GRID_IDS && right < GRID_IDS {
            return self.grid[(left * GRID_IDS + right) as usize];
        }
        let pair = pair(left, right);
        let mut slot = self.slot_of(pair);
        loop {
            let entry = self.slots[slot];
            if entry >> ID_BITS == pair {
                return (entry & NO_RANK as u64) as u32;
            }
            if entry == EMPTY {
                return NO_RANK;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    fn grow(&mut self) {
        let n_slots = self.slots.len() * 2;
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; n_slots]);
        self.shift -= 1;
        for entry in old.into_iter().filter(|&entry| entry != EMPTY) {
            self.place(entry);
        }
    }

    fn place(&mut self, entry: u64) {
        let mut slot = self.slot_of(entry >> ID_BITS);
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = entry;
    }

    /// Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
    #[inline]
    fn slot_of(&self, pair: u64) -> usize {
        (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }
}

#[inline]
fn pair(left: TokenId, right: TokenId) -> u64 {
    (left as u64) << ID_BITS | right as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_inserted_is_found_and_no_other() {
        let mut table = PairTable::with_capacity(0);
        let pairs = || (0..3000u32).map(|rank| (rank * 7 % 600, rank * 11 % 4099, rank));
        let mut known = std::collections::HashMap::new();
        for (left, right, rank) in pairs() {
            if known.insert((left, right), rank).is_none() {
                table.insert(left, right, rank);
            } else {
                known.insert((left, right), table.rank(left, right));
            }
        }
        table.insert(NO_RANK - 1, NO_RANK - 1, NO_RANK - 1);
        assert_eq!(table.rank(NO_RANK - 1, NO_RANK - 1), NO_RANK - 1);
        for left in 0..600 {
            for right in (0..4099).step_by(13) {
                assert_eq!(table.rank(left, right), known.get(&(left, right)).copied().unwrap_or(NO_RANK));
            }
        }
        for (&(left, right), &rank) in &known {
            assert_eq!(table.rank(left, right), rank);
        }
    }
}
