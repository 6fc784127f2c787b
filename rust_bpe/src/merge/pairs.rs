//! The rank of each pair that merges: a grid for the pairs of low ids, a hash table for the others.

use super::NO_RANK;
use crate::memory;
use crate::token::TokenId;

/// Ids below this have a cell for each pair: for the usual numbering all pairs of bytes, which every pre-token starts
/// with, in 256 KiB.
const GRID_IDS: u32 = 256;

const ID_BITS: u32 = 21;
const EMPTY: u64 = 0;

/// (left, right) -> rank. An entry of the hash table is one word: 21 bits each of left, right and the complement of the
/// rank, which is not 0. A look reads a line of entries whole: which of them it is, or that it is none, is nothing that a
/// branch could foresee.
#[derive(Clone, Debug)]
pub(crate) struct PairTable {
    grid: Box<[u32]>,
    lines: Vec<Line>,
    shift: u32,
    n_pairs: usize,
}

/// Taken from the front; what finds no place in its line stands in one behind it.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([u64; LINE]);

const LINE: usize = 8;

impl PairTable {
    /// Makes room for `n_pairs`; more may be inserted.
    pub fn with_capacity(n_pairs: usize) -> Self {
        let n_lines = (n_pairs * 2).next_power_of_two().max(1024) / LINE;
        Self {
            grid: vec![NO_RANK; (GRID_IDS * GRID_IDS) as usize].into(),
            lines: vec![Line([EMPTY; LINE]); n_lines],
            shift: 64 - n_lines.trailing_zeros(),
            n_pairs: 0,
        }
    }

    /// Gives a pair a rank. Ids and ranks must be below [`NO_RANK`]; a pair may be inserted once.
    pub fn insert(&mut self, left: TokenId, right: TokenId, rank: u32) {
        debug_assert!(left < NO_RANK && right < NO_RANK && rank < NO_RANK);
        if left | right < GRID_IDS {
            self.grid[(left * GRID_IDS + right) as usize] = rank;
            return;
        }
        if (self.n_pairs + 1) * 2 > self.lines.len() * LINE {
            self.grow();
        }
        self.n_pairs += 1;
        self.put(pair(left, right) << ID_BITS | u64::from(NO_RANK ^ rank));
    }

    /// The rank of a pair, or [`NO_RANK`].
    #[inline(always)]
    pub fn rank(&self, left: TokenId, right: TokenId) -> u32 {
        if left | right < GRID_IDS {
            return self.grid[(left * GRID_IDS + right) as usize];
        }
        let pair = pair(left, right);
        let mut line = self.line_of(pair);
        // One by one: who asks for one pair alone often asks for the same few, whose places a branch foresees.
        loop {
            for &entry in &self.lines[line].0 {
                if entry >> ID_BITS == pair {
                    return NO_RANK ^ (entry as u32 & NO_RANK);
                }
                if entry == EMPTY {
                    return NO_RANK;
                }
            }
            line = (line + 1) & (self.lines.len() - 1);
        }
    }

    /// Where [`PairTable::rank_at`] begins to look for a pair; calls it into the caches.
    #[inline(always)]
    pub fn place(&self, left: TokenId, right: TokenId) -> u32 {
        let line = self.line_of(pair(left, right));
        memory::prefetch(&self.lines, line);
        line as u32
    }

    /// As [`PairTable::rank`], with the place of the pair.
    #[inline(always)]
    pub fn rank_at(&self, place: u32, left: TokenId, right: TokenId) -> u32 {
        if left | right < GRID_IDS {
            return self.rank(left, right);
        }
        self.find(pair(left, right), place as usize)
    }

    #[inline(always)]
    fn find(&self, pair: u64, mut line: usize) -> u32 {
        loop {
            let entries = &self.lines[line].0;
            let found =
                entries.iter().fold(0, |found, &entry| found | if entry >> ID_BITS == pair { entry } else { 0 });
            // Rarely is a line full.
            if entries[LINE - 1] == EMPTY || found != 0 {
                return NO_RANK ^ (found as u32 & NO_RANK);
            }
            line = (line + 1) & (self.lines.len() - 1);
        }
    }

    fn grow(&mut self) {
        let n_lines = self.lines.len() * 2;
        let old = std::mem::replace(&mut self.lines, vec![Line([EMPTY; LINE]); n_lines]);
        self.shift -= 1;
        for entry in old.into_iter().flat_map(|line| line.0).filter(|&entry| entry != EMPTY) {
            self.put(entry);
        }
    }

    fn put(&mut self, entry: u64) {
        let mut line = self.line_of(entry >> ID_BITS);
        loop {
            if let Some(place) = self.lines[line].0.iter_mut().find(|place| **place == EMPTY) {
                *place = entry;
                return;
            }
            line = (line + 1) & (self.lines.len() - 1);
        }
    }

    /// Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
    #[inline(always)]
    fn line_of(&self, pair: u64) -> usize {
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
