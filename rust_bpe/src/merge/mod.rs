//! Merging the symbols of one pre-token: the pair of the lowest rank first, of several such the leftmost.
//!
//! That rule alone defines the tokens. [`small`] and [`scan`] follow it for short sequences, [`heap`] for sequences of any
//! length in time n log n, [`long`] in time n by joining pieces. All four give the same tokens.
//!
//! Why pieces can be joined: merges never undo a boundary, so what happens between two boundaries that survive is what
//! happens to that stretch alone. It follows, for any table of ranks, that when the last token of A and the first token
//! of B stay two tokens when merged together alone, the tokens of AB are those of A and those of B: before the first
//! merge across the border both sides evolve as they do alone, the two tokens at the border among them, in the same
//! order; so the merge across would also be made when those two stand alone.

mod heap;
mod long;
mod pairs;
mod scan;
mod small;

pub(crate) use heap::Heap;
pub(crate) use long::{Long, Symbols};
pub(crate) use pairs::PairTable;
pub(crate) use scan::{MAX_SCAN, Scan};

use crate::token::TokenId;
use small::MAX_SMALL;

/// The rank of a pair that no merge joins; above every rank.
pub(crate) const NO_RANK: u32 = (1 << 21) - 1;

/// Which pairs merge, in which order, into what.
pub(crate) trait Ranks {
    /// The rank of the merge of two neighbours, below [`NO_RANK`], or [`NO_RANK`].
    fn rank(&self, left: TokenId, right: TokenId) -> u32;

    /// What a merge makes.
    fn result(&self, rank: u32) -> TokenId;
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
    /// By rank.
    results: Vec<TokenId>,
}

impl MergeTable {
    pub fn new(merges: &[Merge]) -> Self {
        let mut pairs = PairTable::with_capacity(merges.len());
        for (merge, rank) in merges.iter().zip(0..) {
            pairs.insert(merge.left, merge.right, rank);
        }
        Self { pairs, results: merges.iter().map(|merge| merge.result).collect() }
    }
}

impl Ranks for MergeTable {
    #[inline]
    fn rank(&self, left: TokenId, right: TokenId) -> u32 {
        self.pairs.rank(left, right)
    }

    #[inline]
    fn result(&self, rank: u32) -> TokenId {
        self.results[rank as usize]
    }
}

/// The workspace of the ways, kept between calls.
#[derive(Default)]
pub(crate) struct Merger {
    scan: Scan,
    heap: Heap,
}

impl Merger {
    /// Merges `symbols` in place.
    pub fn merge(&mut self, symbols: &mut Vec<TokenId>, ranks: &impl Ranks) {
        if symbols.len() <= MAX_SMALL {
            let n_tokens = small::merge(symbols, ranks);
            symbols.truncate(n_tokens);
        } else if symbols.len() <= MAX_SCAN {
            let n_tokens = self.scan.merge(symbols, ranks);
            symbols.truncate(n_tokens);
        } else {
            self.heap.merge(symbols, ranks);
        }
    }
}

#[cfg(test)]
mod tests;
