//! All pairs of the text at one moment: how often each occurs and at how many places.

use rustc_hash::FxHashMap;

use super::pairs::Pair;
use super::text::{Symbol, Text};
use super::tokens::Tokens;

pub struct Tally {
    slots: Vec<Slot>,
    numbering: Numbering,
}

#[derive(Clone, Copy)]
pub struct Slot {
    /// Occurrences, weighted by the words' counts.
    pub count: u64,
    pub n_places: u32,
    /// Where the next place of the pair goes; [`Slot::NOWHERE`] when it is not kept.
    pub cursor: usize,
}

/// Which slot is a pair's.
enum Numbering {
    /// Slot left * n_tokens + right.
    Grid { n_tokens: usize },
    /// The pair of each slot, and back.
    Map { pairs: Vec<Pair>, slot_of: FxHashMap<Pair, u32> },
}

/// Up to so many tokens every pair has its slot. For bytes that is 1.5 MB, of which a text uses the smaller part.
const MAX_GRID_TOKENS: usize = 512;

impl Slot {
    pub const NOWHERE: usize = usize::MAX;
    const EMPTY: Slot = Slot { count: 0, n_places: 0, cursor: Slot::NOWHERE };
}

impl Tally {
    pub fn of<S: Symbol>(text: &Text<S>, tokens: &Tokens) -> Tally {
        let n_tokens = tokens.len();
        let mut tally = if n_tokens <= MAX_GRID_TOKENS {
            Tally { slots: vec![Slot::EMPTY; n_tokens * n_tokens], numbering: Numbering::Grid { n_tokens } }
        } else {
            let numbering = Numbering::Map { pairs: Vec::new(), slot_of: FxHashMap::default() };
            Tally { slots: Vec::new(), numbering }
        };
        text.for_each_pair(tokens, |pair, _, weight| {
            let slot = tally.slot(pair);
            slot.count += weight;
            slot.n_places += 1;
        });
        tally
    }

    /// The slot of a pair, made when there is none yet.
    #[inline]
    pub fn slot(&mut self, pair: Pair) -> &mut Slot {
        let index = match &mut self.numbering {
            Numbering::Grid { n_tokens } => pair.0 as usize * *n_tokens + pair.1 as usize,
            Numbering::Map { pairs, slot_of } => {
                let index = *slot_of.entry(pair).or_insert(pairs.len() as u32) as usize;
                if index == pairs.len() {
                    pairs.push(pair);
                    self.slots.push(Slot::EMPTY);
                }
                index
            }
        };
        &mut self.slots[index]
    }

    /// Calls `visit` for every pair that occurs.
    pub fn for_each(&mut self, mut visit: impl FnMut(Pair, &mut Slot)) {
        for (index, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.n_places > 0) {
            let pair = match &self.numbering {
                Numbering::Grid { n_tokens } => ((index / n_tokens) as u32, (index % n_tokens) as u32),
                Numbering::Map { pairs, .. } => pairs[index],
            };
            visit(pair, slot);
        }
    }
}
