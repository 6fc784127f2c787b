//! All pairs of the text at one moment: how often each occurs and where, counted by several threads, each in a part of
//! the text.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustc_hash::FxHashMap;

use super::pairs::Pair;
use super::text::{Symbol, Text};
use super::tokens::Tokens;
use crate::parallel;

pub struct Tally {
    parts: Vec<Part>,
}

/// One pair in all of the text.
#[derive(Clone, Copy)]
pub struct Total {
    pub pair: Pair,
    /// Occurrences, weighted by the words' counts.
    pub count: u64,
    pub n_places: u32,
}

/// The pairs of a part of the text.
struct Part {
    positions: Range<usize>,
    slots: Vec<Slot>,
    numbering: Numbering,
}

#[derive(Clone, Copy)]
struct Slot {
    count: u64,
    n_places: u32,
    /// Where the next place of the pair goes; [`NOWHERE`] when it is not kept.
    cursor: u32,
}

/// Which slot is a pair's.
enum Numbering {
    /// Slot left * n_tokens + right.
    Grid { n_tokens: usize },
    /// The pair of each slot, and back.
    Map { pairs: Vec<Pair>, slot_of: FxHashMap<Pair, u32> },
}

/// Up to so many tokens every pair has its slot. For bytes that is 1 MB, of which a text uses the smaller part.
const MAX_GRID_TOKENS: usize = 512;

/// There are fewer places than positions, and those are numbered by 32 bits.
const NOWHERE: u32 = u32::MAX;

const EMPTY: Slot = Slot { count: 0, n_places: 0, cursor: NOWHERE };

/// A part takes half a millisecond, ten times as long as starting a thread.
const MIN_PART_POSITIONS: usize = 1 << 16;

impl Tally {
    /// Counts by at most `threads` threads.
    pub fn of<S: Symbol>(text: &Text<S>, tokens: &Tokens, threads: usize) -> Tally {
        let n_parts = (text.symbols.len() / MIN_PART_POSITIONS).clamp(1, threads.max(1));
        Tally { parts: parallel::map(text.parts(n_parts), |positions| Part::of(text, tokens, positions)) }
    }

    /// All pairs that occur.
    pub fn totals(&self) -> Vec<Total> {
        let mut totals: Vec<Total> = Vec::new();
        for (i, part) in self.parts.iter().enumerate() {
            for (slot, pair) in part.pairs() {
                let before = self.parts[..i].iter().any(|part| part.get(pair).is_some());
                if !before {
                    let Slot { mut count, mut n_places, .. } = part.slots[slot];
                    for other in self.parts[i + 1..].iter().filter_map(|part| part.get(pair)) {
                        count += other.count;
                        n_places += other.n_places;
                    }
                    totals.push(Total { pair, count, n_places });
                }
            }
        }
        totals
    }

    /// Says where the places of a pair go, from `start` on.
    pub fn keep(&mut self, pair: Pair, mut start: usize) {
        for part in &mut self.parts {
            if let Some(slot) = part.slot_of(pair) {
                let slot = &mut part.slots[slot];
                slot.cursor = start as u32;
                start += slot.n_places as usize;
            }
        }
    }

    /// Writes the places of the pairs that are kept, those of each pair in ascending order.
    pub fn write_places<S: Symbol>(self, text: &Text<S>, tokens: &Tokens, places: &[AtomicU32]) {
        parallel::map(self.parts, |mut part| {
            text.for_each_pair(part.positions.clone(), tokens, |pair, place, _| {
                let slot = part.slot_made(pair);
                if slot.cursor != NOWHERE {
                    places[slot.cursor as usize].store(place, Relaxed); // nobody else writes there
                    slot.cursor += 1;
                }
            });
        });
    }
}

impl Part {
    fn of<S: Symbol>(text: &Text<S>, tokens: &Tokens, positions: Range<usize>) -> Part {
        let n_tokens = tokens.len();
        let mut part = if n_tokens <= MAX_GRID_TOKENS {
            let numbering = Numbering::Grid { n_tokens };
            Part { positions: positions.clone(), slots: vec![EMPTY; n_tokens * n_tokens], numbering }
        } else {
            let numbering = Numbering::Map { pairs: Vec::new(), slot_of: FxHashMap::default() };
            Part { positions: positions.clone(), slots: Vec::new(), numbering }
        };
        text.for_each_pair(positions, tokens, |pair, _, weight| {
            let slot = part.slot_made(pair);
            slot.count += weight;
            slot.n_places += 1;
        });
        part
    }

    /// The pairs that occur, with their slots.
    fn pairs(&self) -> impl Iterator<Item = (usize, Pair)> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.n_places > 0).map(|(slot, _)| {
            let pair = match &self.numbering {
                Numbering::Grid { n_tokens } => ((slot / n_tokens) as u32, (slot % n_tokens) as u32),
                Numbering::Map { pairs, .. } => pairs[slot],
            };
            (slot, pair)
        })
    }

    fn get(&self, pair: Pair) -> Option<Slot> {
        self.slot_of(pair).map(|slot| self.slots[slot])
    }

    /// The number of a pair's slot, if it occurs.
    fn slot_of(&self, pair: Pair) -> Option<usize> {
        match &self.numbering {
            Numbering::Grid { n_tokens } => {
                Some(pair.0 as usize * n_tokens + pair.1 as usize).filter(|&slot| self.slots[slot].n_places > 0)
            }
            Numbering::Map { slot_of, .. } => slot_of.get(&pair).map(|&slot| slot as usize),
        }
    }

    /// The slot of a pair, made when there is none yet.
    #[inline(always)]
    fn slot_made(&mut self, pair: Pair) -> &mut Slot {
        let index = match &mut self.numbering {
            Numbering::Grid { n_tokens } => pair.0 as usize * *n_tokens + pair.1 as usize,
            Numbering::Map { pairs, slot_of } => {
                let index = *slot_of.entry(pair).or_insert(pairs.len() as u32) as usize;
                if index == pairs.len() {
                    pairs.push(pair);
                    self.slots.push(EMPTY);
                }
                index
            }
        };
        &mut self.slots[index]
    }
}
