//! Merging the symbols of one pre-token: the pair of the lowest rank first, of several such the leftmost.
//!
//! That rule alone defines the tokens. [`small`] and [`scan`] follow it for short sequences, [`batch`] for several at once,
//! [`runs`] for a few runs of one symbol each, [`heap`] for sequences of any length in time n log n, [`buckets`] rank by rank
//! where the order of the merges allows it, [`long`] in time n by joining pieces. All give the same tokens.
//!
//! Why pieces can be joined: merges never undo a boundary, so what happens between two boundaries that survive is what
//! happens to that stretch alone. It follows, for any table of ranks, that when the last token of A and the first token
//! of B stay two tokens when merged together alone, the tokens of AB are those of A and those of B: before the first
//! merge across the border both sides evolve as they do alone, the two tokens at the border among them, in the same
//! order; so the merge across would also be made when those two stand alone.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod batch;
mod buckets;
mod chain;
mod heap;
mod long;
mod pairs;
mod runs;
mod scan;
mod small;

pub(crate) use batch::{Batch, LANES};
pub(crate) use heap::Heap;
pub(crate) use long::{Long, Symbols};
pub(crate) use pairs::PairTable;
pub(crate) use scan::{MAX_SCAN, Scan};

use crate::processor::Avx2;
use crate::token::TokenId;
use buckets::Buckets;
use runs::Runs;
use small::MAX_SMALL;

/// Longer sequences go to [`buckets`] where they may; below, a heap stays in the caches.
const MAX_HEAP: usize = 1 << 14;

/// The rank of a pair that no merge joins; above every rank.
pub(crate) const NO_RANK: u32 = (1 << 21) - 1;

/// Which pairs merge, in which order, into what.
pub(crate) trait Ranks {
    /// The rank of the merge of two neighbours, below [`NO_RANK`], or [`NO_RANK`].
    fn rank(&self, left: TokenId, right: TokenId) -> u32;

    /// Where [`Ranks::rank_at`] begins to look for the rank of two neighbours; calls it into the caches.
    fn place(&self, _left: TokenId, _right: TokenId) -> u32 {
        0
    }

    /// As [`Ranks::rank`], with their place.
    #[inline(always)]
    fn rank_at(&self, _place: u32, left: TokenId, right: TokenId) -> u32 {
        self.rank(left, right)
    }

    /// What a merge makes.
    fn result(&self, rank: u32) -> TokenId;

    /// Whether what a merge makes is a part of later merges alone.
    fn in_order(&self) -> bool {
        false
    }
}

/// Two tokens that become one; the rank of a merge is its place in a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    pub left: TokenId,
    pub right: TokenId,
    pub result: TokenId,
}

/// A list of merges as the table that merging asks.
#[derive(Clone, Debug)]
pub(crate) struct MergeTable {
    pairs: PairTable,
    results: Results,
    in_order: bool,
}

/// What the merge of each rank makes.
#[derive(Clone, Debug)]
enum Results {
    /// The rank and so much: as nearly all vocabularies are numbered. Asking costs no memory.
    From(TokenId),
    ByRank(Vec<TokenId>),
}

impl MergeTable {
    pub fn new(merges: &[Merge]) -> Self {
        let mut pairs = PairTable::with_capacity(merges.len());
        for (merge, rank) in merges.iter().zip(0..) {
            pairs.insert(merge.left, merge.right, rank);
        }
        let first = merges.first().map_or(0, |merge| merge.result);
        let results = if merges.iter().zip(first..).all(|(merge, id)| merge.result == id) {
            Results::From(first)
        } else {
            Results::ByRank(merges.iter().map(|merge| merge.result).collect())
        };
        Self { pairs, results, in_order: in_order(merges) }
    }
}

impl Ranks for MergeTable {
    #[inline(always)]
    fn rank(&self, left: TokenId, right: TokenId) -> u32 {
        self.pairs.rank(left, right)
    }

    #[inline(always)]
    fn place(&self, left: TokenId, right: TokenId) -> u32 {
        self.pairs.place(left, right)
    }

    #[inline(always)]
    fn rank_at(&self, place: u32, left: TokenId, right: TokenId) -> u32 {
        self.pairs.rank_at(place, left, right)
    }

    #[inline]
    fn result(&self, rank: u32) -> TokenId {
        match &self.results {
            Results::From(first) => first + rank,
            Results::ByRank(ids) => ids[rank as usize],
        }
    }

    fn in_order(&self) -> bool {
        self.in_order
    }
}

/// See [`Ranks::in_order`].
fn in_order(merges: &[Merge]) -> bool {
    let largest = merges.iter().map(|merge| merge.left.max(merge.right)).max().unwrap_or(0);
    let mut first_use = vec![usize::MAX; largest as usize + 1];
    for (rank, merge) in merges.iter().enumerate().rev() {
        first_use[merge.left as usize] = rank;
        first_use[merge.right as usize] = rank;
    }
    merges
        .iter()
        .enumerate()
        .all(|(rank, merge)| first_use.get(merge.result as usize).is_none_or(|&first| first > rank))
}

/// The workspace of the ways, kept between calls.
pub(crate) struct Merger {
    avx2: Option<Avx2>,
    scan: Scan,
    heap: Heap,
    buckets: Buckets,
    runs: Runs,
}

impl Default for Merger {
    fn default() -> Self {
        Self {
            avx2: Avx2::detect(),
            scan: Scan::default(),
            heap: Heap::default(),
            buckets: Buckets::default(),
            runs: Runs::default(),
        }
    }
}

impl Merger {
    /// Merges `symbols` in place.
    pub fn merge(&mut self, symbols: &mut Vec<TokenId>, ranks: &impl Ranks) {
        if symbols.len() <= MAX_SMALL {
            let n_tokens = match self.avx2 {
                #[cfg(target_arch = "x86_64")]
                Some(processor) => avx2::merge(processor, symbols, ranks),
                _ => small::merge(symbols, ranks),
            };
            symbols.truncate(n_tokens);
        } else if ranks.in_order() && self.runs.merge(symbols, ranks) {
            // Done.
        } else if symbols.len() <= MAX_SCAN {
            let n_tokens = match self.avx2 {
                #[cfg(target_arch = "x86_64")]
                Some(processor) => avx2::scan(processor, &mut self.scan, symbols, ranks),
                _ => self.scan.merge(symbols, ranks),
            };
            symbols.truncate(n_tokens);
        } else if symbols.len() <= MAX_HEAP || !ranks.in_order() {
            self.heap.merge(symbols, ranks);
        } else {
            self.buckets.merge(symbols, ranks);
        }
    }
}

#[cfg(test)]
mod tests;

/// Moves the tokens that are left together: each stands at its first symbol, and `next` has where the one after it does.
/// Returns how many there are.
#[inline(always)]
fn compact(symbols: &mut [TokenId], next: impl Fn(usize) -> usize) -> usize {
    let mut n_tokens = 0;
    let mut position = 0;
    while position < symbols.len() {
        symbols[n_tokens] = symbols[position];
        n_tokens += 1;
        position = next(position);
    }
    n_tokens
}
