//! What stands on one side of the places of one merge: sums by token, in an array over all tokens that is clean between
//! merges, and the places in order.

use super::pairs::Pairs;
use super::text::{EDGE, Place};

/// Without a branch per place: the edge of a word counts as a neighbour too, and whoever reads skips it.
pub struct Neighbours {
    /// By token + 1, so that [`EDGE`], the largest number, is the first.
    sums: Vec<Sum>,
    /// The tokens met, in order, with room for one more.
    tokens: Vec<u32>,
    n_tokens: usize,
    places: Vec<(u32, Place)>,
}

#[derive(Clone, Copy)]
struct Sum {
    count: u64,
    n_places: u32,
    /// The number of the new pair with this neighbour, when it is kept.
    index: u32,
}

const NOT_KEPT: u32 = u32::MAX;
const ZERO: Sum = Sum { count: 0, n_places: 0, index: NOT_KEPT };

impl Neighbours {
    pub fn new(n_tokens: usize) -> Self {
        let n_sums = n_tokens + 1;
        Neighbours { sums: vec![ZERO; n_sums], tokens: vec![EDGE; n_sums + 1], n_tokens: 0, places: Vec::new() }
    }

    pub fn add_token(&mut self) {
        self.sums.push(ZERO);
        self.tokens.push(EDGE);
    }

    #[inline]
    pub fn add(&mut self, token: u32, weight: u64, place: Place) {
        let sum = &mut self.sums[token.wrapping_add(1) as usize];
        self.tokens[self.n_tokens] = token;
        self.n_tokens += usize::from(sum.n_places == 0);
        sum.count += weight;
        sum.n_places += 1;
        self.places.push((token, place));
    }

    pub fn tokens(&self) -> &[u32] {
        &self.tokens[..self.n_tokens]
    }

    pub fn count(&self, token: u32) -> u64 {
        self.sums[token.wrapping_add(1) as usize].count
    }

    pub fn n_places(&self, token: u32) -> usize {
        self.sums[token.wrapping_add(1) as usize].n_places as usize
    }

    /// Says which new pair gets the places at this neighbour.
    pub fn keep(&mut self, token: u32, index: u32) {
        self.sums[token.wrapping_add(1) as usize].index = index;
    }

    /// Hands the places to the pairs that are kept, and is clean again.
    pub fn finish(&mut self, pairs: &mut Pairs) {
        for &(token, place) in &self.places {
            let index = self.sums[token.wrapping_add(1) as usize].index;
            if index != NOT_KEPT {
                pairs.get_mut(index).places.push(place);
            }
        }
        for &token in &self.tokens[..self.n_tokens] {
            self.sums[token.wrapping_add(1) as usize] = ZERO;
        }
        self.n_tokens = 0;
        self.places.clear();
    }
}
