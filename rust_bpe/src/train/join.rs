//! Joining one pair wherever it stands, by several threads where that is often.

use std::thread;

use super::neighbours::Neighbours;
use super::pairs::Pair;
use super::text::{Place, Symbol, Text};
use super::tokens::Tokens;
use super::weights::Weights;

/// What stands to the left and to the right of the joined places.
#[derive(Default)]
pub struct Sides {
    pub left: Neighbours,
    pub right: Neighbours,
}

/// From so many places on, a second thread saves more than starting it costs: a place takes 20 to 50 ns, a start 50 us.
const MIN_PLACES_PER_THREAD: usize = 8192;

/// Writes `z` over a pair at those of `places`, which are ascending, where it still stands. The first of `sides` has the
/// neighbours met there, in the order of the places; there is one for each thread.
pub fn join<S: Symbol>(text: &mut Text<S>, tokens: &Tokens, pair: Pair, z: u32, places: &[Place], sides: &mut [Sides]) {
    let n_threads = (places.len() / MIN_PLACES_PER_THREAD).clamp(1, sides.len());
    for Sides { left, right } in &mut sides[..n_threads] {
        left.reserve(tokens.len());
        right.reserve(tokens.len());
    }
    let Text { symbols, weights, .. } = text;
    let lengths = (tokens.n_symbols(pair.0), tokens.n_symbols(pair.1));
    let whole = Section { symbols, start: 0, weights };
    if n_threads == 1 {
        return whole.join(pair, lengths, z, places, &mut sides[0]);
    }
    let (own, others) = sides[..n_threads].split_at_mut(1);
    thread::scope(|scope| {
        let (mut section, mut places) = (whole, places);
        for (i, sides) in others.iter_mut().enumerate() {
            // The last sections go first, so that what is left is the beginning.
            let n_parts = n_threads - i;
            let cut = section.edge_from(places[places.len() / n_parts * (n_parts - 1)]);
            let (own_places, their_places) = places.split_at(places.partition_point(|&place| (place as usize) < cut));
            let theirs = section.split_off(cut);
            scope.spawn(move || theirs.join(pair, lengths, z, their_places, sides));
            places = own_places;
        }
        section.join(pair, lengths, z, places, &mut own[0]);
    });
    for sides in others.iter_mut().rev() {
        own[0].left.append(&mut sides.left);
        own[0].right.append(&mut sides.right);
    }
}

/// The words of one thread: a stretch of the text from one edge up to before another.
struct Section<'t, S> {
    symbols: &'t mut [S],
    /// The position of the first of them.
    start: usize,
    weights: &'t Weights,
}

impl<'t, S: Symbol> Section<'t, S> {
    /// The first edge from a position on; the end when there is none.
    fn edge_from(&self, position: Place) -> usize {
        let rest = &self.symbols[position as usize - self.start..];
        position as usize + rest.iter().position(|&symbol| symbol == S::EDGE).unwrap_or(rest.len())
    }

    /// Keeps what stands before the position `cut` and returns the rest.
    fn split_off(&mut self, cut: usize) -> Section<'t, S> {
        let (symbols, theirs) = std::mem::take(&mut self.symbols).split_at_mut(cut - self.start);
        self.symbols = symbols;
        Section { symbols: theirs, start: cut, weights: self.weights }
    }

    fn join(self, pair: Pair, (x_len, y_len): (usize, usize), z: u32, places: &[Place], sides: &mut Sides) {
        let Section { symbols, start: first, weights } = self;
        let (x, y, z) = (S::of(pair.0), S::of(pair.1), S::of(z));
        let mut fresh = [0; 256];
        for places in places.chunks(fresh.len()) {
            // First a loop without branches, so that many cache misses are under way at once.
            let mut n_fresh = 0;
            for &place in places {
                let boundary = place as usize - first;
                fresh[n_fresh] = place;
                n_fresh += usize::from((symbols[boundary - 1] == x) & (symbols[boundary] == y));
            }
            for &place in &fresh[..n_fresh] {
                let boundary = place as usize - first;
                if x == y && (symbols[boundary - 1] != x || symbols[boundary] != y) {
                    continue; // in a run, the place before took this one's x
                }
                let (start, end) = (boundary - x_len, boundary + y_len);
                let before = symbols[start - 1];
                let after = symbols.get(end).copied().unwrap_or(S::EDGE);
                symbols[start] = z;
                symbols[end - 1] = z;
                let (start, end) = (first + start, first + end);
                let weight = weights.get(start);
                sides.left.add(before, weight, start as Place);
                sides.right.add(after, weight, end as Place);
            }
        }
    }
}
