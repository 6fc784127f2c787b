//! What stands on one side of the places of one merge: sums by token, in an array over all tokens that is clean between
//! merges, and the places in order.

use super::pairs::Pairs;
use super::text::{Place, Symbol};

/// Without a branch per place: the edge of a word counts as a neighbour too, and whoever reads passes over it.
#[derive(Default)]
pub struct Neighbours {
    /// By [`Symbol::number`].
    sums: Vec<Sum>,
    /// The numbers met, in order; behind them room for one more.
    numbers: Vec<u32>,
    n_numbers: usize,
    places: Vec<(u32, Place)>,
}

/// What was met of one token.
#[derive(Clone, Copy, Default)]
pub struct Sum {
    /// How often, weighted.
    pub count: u64,
    /// At how many places.
    pub n_places: u32,
    /// Whether the new pair with this neighbour is kept; then its next place goes to `cursor`.
    is_kept: bool,
    cursor: usize,
}

impl Sum {
    /// Says where the places go.
    pub fn keep(&mut self, start: usize) {
        (self.is_kept, self.cursor) = (true, start);
    }
}

impl Neighbours {
    /// Makes room for so many tokens.
    pub fn reserve(&mut self, n_tokens: usize) {
        self.sums.resize(n_tokens + 1, Sum::default());
        self.numbers.resize(n_tokens + 2, 0);
    }

    #[inline(always)]
    pub fn add<S: Symbol>(&mut self, symbol: S, weight: u64, place: Place) {
        let number = symbol.number();
        let sum = &mut self.sums[number as usize];
        self.numbers[self.n_numbers] = number;
        self.n_numbers += usize::from(sum.n_places == 0);
        sum.count += weight;
        sum.n_places += 1;
        self.places.push((number, place));
    }

    /// Adds what another thread met behind these places, and leaves it clean.
    pub fn append(&mut self, other: &mut Neighbours) {
        for &number in &other.numbers[..other.n_numbers] {
            let theirs = std::mem::take(&mut other.sums[number as usize]);
            let sum = &mut self.sums[number as usize];
            if sum.n_places == 0 {
                self.numbers[self.n_numbers] = number;
                self.n_numbers += 1;
            }
            sum.count += theirs.count;
            sum.n_places += theirs.n_places;
        }
        other.n_numbers = 0;
        self.places.append(&mut other.places);
    }

    pub fn n_places(&self) -> usize {
        self.places.len()
    }

    /// How often a token was met, weighted.
    pub fn count(&self, token: u32) -> u64 {
        self.sums[token as usize + 1].count
    }

    /// Calls `visit(token, sum)` for every token met.
    pub fn for_each(&mut self, mut visit: impl FnMut(u32, &mut Sum)) {
        for &number in &self.numbers[..self.n_numbers] {
            if number != 0 {
                visit(number - 1, &mut self.sums[number as usize]);
            }
        }
    }

    /// Hands the places to the pairs that are kept, and is clean again.
    pub fn finish(&mut self, pairs: &mut Pairs) {
        for &(number, place) in &self.places {
            let sum = &mut self.sums[number as usize];
            if sum.is_kept {
                pairs.set_place(sum.cursor, place);
                sum.cursor += 1;
            }
        }
        for &number in &self.numbers[..self.n_numbers] {
            self.sums[number as usize] = Sum::default();
        }
        self.n_numbers = 0;
        self.places.clear();
    }
}
