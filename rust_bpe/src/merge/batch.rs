//! Merging a few short sequences together, a step of each in turn.
//!
//! A table of pairs is larger than the caches near the processor, and merging one sequence waits for it at every step: two
//! thirds of the time stood at its loads. Here the pairs that a step will ask for are called into the caches, and looked up
//! when all the other sequences have taken their step. Otherwise as [`super::small`].

use super::small::{MAX_SMALL, POSITION_BITS, next};
use super::{NO_RANK, Ranks};
use crate::processor::Avx2;
use crate::token::TokenId;

/// Sequences that are merged together at most. Their workspace fills an eighth of the first cache.
pub(crate) const LANES: usize = 16;

/// Up to [`LANES`] sequences of at most [`MAX_SMALL`] symbols.
pub(crate) struct Batch {
    pub(super) avx2: Option<Avx2>,
    lanes: [Lane; LANES],
    n_lanes: usize,
}

/// A sequence, and then its tokens.
#[derive(Clone, Copy)]
pub(crate) struct Lane {
    symbols: [TokenId; MAX_SMALL],
    keys: [i32; MAX_SMALL],
    n: usize,
    /// The positions that were not merged into others.
    live: u32,
    /// The pairs that the last merge made.
    asked: [Asked; 2],
}

/// A pair whose rank is wanted.
#[derive(Clone, Copy)]
struct Asked {
    position: u32,
    left: TokenId,
    right: TokenId,
    place: u32,
}

const NOTHING: Asked = Asked { position: 0, left: NO_RANK, right: NO_RANK, place: 0 };

/// From here on a key is that of a pair that does not merge.
const NO_KEY: i32 = (NO_RANK << POSITION_BITS) as i32;

const EMPTY: Lane = Lane { symbols: [0; MAX_SMALL], keys: [NO_KEY; MAX_SMALL], n: 0, live: 0, asked: [NOTHING; 2] };

impl Default for Batch {
    fn default() -> Self {
        Self { avx2: Avx2::detect(), lanes: [EMPTY; LANES], n_lanes: 0 }
    }
}

impl Batch {
    /// Forgets all sequences.
    pub fn clear(&mut self) {
        self.n_lanes = 0;
    }

    /// An empty sequence more, of [`LANES`] at most.
    pub fn add(&mut self) -> &mut Lane {
        let lane = &mut self.lanes[self.n_lanes];
        self.n_lanes += 1;
        lane.n = 0;
        lane
    }

    /// Merges all sequences.
    pub fn merge(&mut self, ranks: &impl Ranks) {
        match self.avx2 {
            #[cfg(target_arch = "x86_64")]
            Some(processor) => super::avx2::merge_lanes(processor, &mut self.lanes[..self.n_lanes], ranks),
            _ => merge_lanes(&mut self.lanes[..self.n_lanes], ranks),
        }
    }

    /// The tokens of a sequence, by the order in which they were added.
    pub fn tokens(&self, lane: usize) -> &[TokenId] {
        let lane = &self.lanes[lane];
        &lane.symbols[..lane.n]
    }
}

/// Merges each of `lanes`.
#[inline(always)]
pub(super) fn merge_lanes(lanes: &mut [Lane], ranks: &impl Ranks) {
    let mut active = [0; LANES];
    let mut n_active = 0;
    for (index, lane) in lanes.iter_mut().enumerate() {
        if lane.n > 1 {
            lane.start(ranks);
            active[n_active] = index;
            n_active += 1;
        }
    }
    while n_active > 0 {
        let mut n_left = 0;
        for place in 0..n_active {
            let index = active[place];
            if lanes[index].join(ranks) {
                active[n_left] = index;
                n_left += 1;
            }
        }
        n_active = n_left;
        for &index in &active[..n_active] {
            lanes[index].look(ranks);
        }
    }
}

impl Lane {
    /// Takes the place of all symbols.
    pub fn set(&mut self, token: TokenId) {
        (self.symbols[0], self.n) = (token, 1);
    }

    /// Appends a symbol, of [`MAX_SMALL`] at most.
    #[inline(always)]
    pub fn push(&mut self, symbol: TokenId) {
        self.symbols[self.n % MAX_SMALL] = symbol;
        self.n += 1;
    }

    #[inline(always)]
    fn start(&mut self, ranks: &impl Ranks) {
        self.keys = [NO_KEY; MAX_SMALL];
        self.live = u32::MAX >> (MAX_SMALL - self.n);
        for (position, pair) in self.symbols[..self.n].windows(2).enumerate() {
            self.keys[position] = key(ranks.rank(pair[0], pair[1]), position);
        }
    }

    /// Merges the leftmost pair of the lowest rank, and calls the pairs that come of it; false when none is left.
    #[inline(always)]
    fn join(&mut self, ranks: &impl Ranks) -> bool {
        let best = self.least();
        if best >= NO_KEY {
            self.finish();
            return false;
        }
        let at = best as usize % MAX_SMALL;
        let gone = next(self.live, at) % MAX_SMALL;
        self.live &= !(1 << gone);
        self.keys[gone] = NO_KEY;
        self.symbols[at] = ranks.result(best as u32 >> POSITION_BITS);
        self.asked = self.pairs(at).map(|asked| Asked { place: ranks.place(asked.left, asked.right), ..asked });
        true
    }

    /// Looks up the pairs of the last merge.
    #[inline(always)]
    fn look(&mut self, ranks: &impl Ranks) {
        for Asked { position, left, right, place } in self.asked {
            let rank = ranks.rank_at(place, left, right);
            self.keys[position as usize % MAX_SMALL] = key(rank, position as usize);
        }
    }

    /// The pairs that a merge at `at` is in: the one that ends with it, and the one that begins. Chosen without a branch:
    /// of one that is not there the symbols are no token's, and the position is one where no pair can begin.
    #[inline(always)]
    fn pairs(&self, at: usize) -> [Asked; 2] {
        let merged = self.symbols[at];
        let lower = self.live & ((1 << at) - 1);
        let before = (lower | 1).ilog2();
        let left = if lower != 0 { self.symbols[before as usize] } else { NO_RANK };
        let position = if lower != 0 { before } else { MAX_SMALL as u32 - 1 };
        let after = next(self.live, at);
        let right = if after < MAX_SMALL { self.symbols[after % MAX_SMALL] } else { NO_RANK };
        [
            Asked { position, left, right: if lower != 0 { merged } else { NO_RANK }, place: 0 },
            Asked { position: at as u32, left: if after < MAX_SMALL { merged } else { NO_RANK }, right, place: 0 },
        ]
    }

    #[inline(always)]
    fn least(&self) -> i32 {
        const WIDTH: usize = 8;
        let mut least = [NO_KEY; WIDTH];
        // Nearly all sequences are in the first half.
        let keys = if self.live >> (MAX_SMALL / 2) == 0 { &self.keys[..MAX_SMALL / 2] } else { &self.keys };
        for chunk in keys.as_chunks::<WIDTH>().0 {
            for (least, &key) in least.iter_mut().zip(chunk) {
                *least = key.min(*least);
            }
        }
        least.into_iter().fold(NO_KEY, i32::min)
    }

    /// Moves the tokens together.
    #[inline(always)]
    fn finish(&mut self) {
        let mut live = self.live;
        self.n = 0;
        while live != 0 {
            self.push(self.symbols[live.trailing_zeros() as usize]);
            live &= live - 1;
        }
    }
}

#[inline(always)]
fn key(rank: u32, position: usize) -> i32 {
    (rank << POSITION_BITS) as i32 | position as i32
}
