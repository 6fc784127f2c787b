//! All pairs of the text at one moment: how often each occurs and at how many places.

use rustc_hash::FxHashMap;

use super::pairs::Pair;
use super::text::{Symbol, Text};
use super::tokens::Tokens;

pub struct Tally {
    slots: Vec<Slot>,
    numbering: Numbering,
}

#[derive(Clone, Copy, Default)]
pub struct Slot {
    pub pair: Pair,
    pub count: u64,
    pub n_places: u32,
    /// Where the next place of the pair goes, when it is kept.
    pub cursor: Option<usize>,
}

/// Where a pair's slot is.
enum Numbering {
    /// Slot left * n_tokens + right.
    Grid {
        n_tokens: usize,
    },
    Map(FxHashMap<Pair, u32>),
}

/// Up to so many tokens every pair gets its slot: of bytes, that is 2.5 MB, of which text uses a part.
const MAX_GRID_TOKENS: usize = 512;

impl Tally {
    pub fn of<S: Symbol>(text: &Text<S>, tokens: &Tokens) -> Tally {
        let n_tokens = tokens.len();
        let mut tally = if n_tokens <= MAX_GRID_TOKENS {
            Tally { slots: vec![Slot::default(); n_tokens * n_tokens], numbering: Numbering::Grid { n_tokens } }
        } else {
            Tally { slots: Vec::new(), numbering: Numbering::Map(FxHashMap::default()) }
        };
        text.for_each_pair(tokens, |pair, _, weight| {
            let slot = tally.slot(pair);
            slot.pair = pair;
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
            Numbering::Map(map) => {
                let index = *map.entry(pair).or_insert(self.slots.len() as u32) as usize;
                if index == self.slots.len() {
                    self.slots.push(Slot::default());
                }
                index
            }
        };
        &mut self.slots[index]
    }

    /// The pairs that occur.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().filter(|slot| slot.n_places > 0)
    }
}
