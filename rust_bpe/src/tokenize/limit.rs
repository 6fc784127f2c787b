//! A limit in tokens, turned into limits in bytes: how far each input may be read.

use std::sync::{Arc, Mutex, PoisonError};

use super::encode::TextEncoder;
use crate::corpus::{Block, Corpus, Format, Pass, Piece};
use crate::encode::{Cache, Encoder};
use crate::error::Result;
use crate::monitor::Monitor;
use crate::vocabulary::Vocabulary;

/// Finds for each input how many unpacked bytes hold at most `limit` ids, an end of text behind each document included
/// where `has_end`. The document that crosses the limit is kept up to the last place where it may be cut; a JSON record,
/// which cannot be cut, is left out.
///
/// Two passes: all threads count the ids of blocks until each input is beyond its limit, then the block that crosses it
/// is looked at again.
pub(super) fn byte_limits(
    corpus: &Corpus,
    vocabulary: &Arc<Vocabulary>,
    has_end: bool,
    limit: u64,
    n_threads: usize,
    monitor: &Monitor,
) -> Result<Vec<Option<u64>>> {
    let encoder = Encoder::new(vocabulary.clone());
    let counter = Counter { encoder: TextEncoder::new(corpus, &encoder), n_end_ids: u64::from(has_end), limit };
    let counted: Vec<Mutex<Counted>> = corpus.inputs.iter().map(|_| Mutex::default()).collect();
    let counted_of = |block: &Block| counted[block.input].lock().unwrap_or_else(PoisonError::into_inner);
    let count = |state: &mut (Cache, Vec<BlockIds>), block: &mut Block| {
        if counted_of(block).may_reach(block.index, limit) {
            let ids = counter.block(block, &mut state.0)?;
            counted_of(block).add(&ids);
            state.1.push(ids);
        }
        Ok(())
    };
    let (states, sources) = corpus.each_block(Pass::First, n_threads, monitor, Default::default, count)?;
    let mut blocks: Vec<BlockIds> = states.into_iter().flat_map(|(_, blocks)| blocks).collect();
    blocks.sort_unstable_by_key(|block| block.index);

    let crossings = counter.crossings(&blocks, corpus.inputs.len());
    let find = |state: &mut (Cache, Vec<(usize, u64)>), block: &mut Block| {
        match crossings[block.input] {
            Some(crossing) if crossing.index == block.index => {
                let place = counter.place_in(block, crossing.n_before, &mut state.0)?;
                state.1.push((block.input, place));
            }
            _ => {}
        }
        Ok(())
    };
    let (states, _) = corpus.each_block(Pass::Again(&sources), n_threads, monitor, Default::default, find)?;
    let mut limits = corpus.limits.clone();
    for (input, place) in states.into_iter().flat_map(|(_, places)| places) {
        limits[input] = Some(place);
    }
    Ok(limits)
}

/// The blocks of an input whose ids are counted.
#[derive(Default)]
struct Counted {
    n_ids: u64,
    last_index: usize,
}

impl Counted {
    /// Whether the block may lie before the limit. Blocks come in order and are done in any: those that are done may hold
    /// more ids than the limit and lie behind one that is not.
    fn may_reach(&self, index: usize, limit: u64) -> bool {
        self.n_ids <= limit || index < self.last_index
    }

    fn add(&mut self, block: &BlockIds) {
        self.n_ids += block.n_ids;
        self.last_index = self.last_index.max(block.index);
    }
}

/// What a block holds.
#[derive(Clone, Copy)]
struct BlockIds {
    index: usize,
    input: usize,
    n_ids: u64,
    /// Whether its last document goes on in the next block.
    is_open: bool,
}

/// The block in which an input reaches the limit.
#[derive(Clone, Copy)]
struct Crossing {
    index: usize,
    n_before: u64,
}

struct Counter<'c> {
    encoder: TextEncoder<'c>,
    n_end_ids: u64,
    limit: u64,
}

impl Counter<'_> {
    fn block(&self, block: &Block, cache: &mut Cache) -> Result<BlockIds> {
        let mut ids = BlockIds { index: block.index, input: block.input, n_ids: 0, is_open: false };
        block.pieces(self.encoder.corpus, |piece| {
            ids.n_ids += self.piece(block, &piece, cache)?;
            ids.is_open = !piece.ends;
            Ok(())
        })?;
        Ok(ids)
    }

    /// The ids of a piece, its end of text included.
    fn piece(&self, block: &Block, piece: &Piece, cache: &mut Cache) -> Result<u64> {
        let n_ids = self.encoder.count(block.input, piece.text, cache);
        let n_ids = n_ids.map_err(|error| block.in_document(piece.document, piece.offset, error))?;
        Ok(n_ids + if piece.ends && !piece.is_empty_document() { self.n_end_ids } else { 0 })
    }

    /// For each input the first block with which it, were it to end there, would have too many ids.
    fn crossings(&self, blocks: &[BlockIds], n_inputs: usize) -> Vec<Option<Crossing>> {
        let mut crossings = vec![None; n_inputs];
        let mut totals = vec![0; n_inputs];
        for block in blocks {
            let total = &mut totals[block.input];
            let n_before = *total;
            *total += block.n_ids;
            let with_end = *total + if block.is_open { self.n_end_ids } else { 0 };
            if with_end > self.limit && crossings[block.input].is_none() {
                crossings[block.input] = Some(Crossing { index: block.index, n_before });
            }
        }
        crossings
    }

    /// Where in the unpacked input to stop, in the block that crosses the limit.
    fn place_in(&self, block: &Block, n_before: u64, cache: &mut Cache) -> Result<u64> {
        let mut n_ids = n_before;
        let mut place = None;
        block.pieces(self.encoder.corpus, |piece| {
            if place.is_none() {
                let after = n_ids + self.piece(block, &piece, cache)?;
                if after + if piece.ends { 0 } else { self.n_end_ids } > self.limit {
                    let room = self.limit.saturating_sub(n_ids + self.n_end_ids);
                    place = Some(piece.source.start + self.prefix(block, &piece, room, cache)? as u64);
                }
                n_ids = after;
            }
            Ok(())
        })?;
        Ok(place.unwrap_or(u64::MAX))
    }

    /// How many bytes of a piece hold at most `room` ids, up to a place where it may be cut.
    fn prefix(&self, block: &Block, piece: &Piece, room: u64, cache: &mut Cache) -> Result<usize> {
        let corpus = self.encoder.corpus;
        if corpus.inputs[block.input].format == Format::Jsonl {
            return Ok(0);
        }
        let (mut best, mut low, mut high) = (0, 0, piece.text.len());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let cut = corpus.last_cut(block.input, piece.text, middle).unwrap_or(0);
            if self.encoder.count(block.input, &piece.text[..cut], cache)? <= room {
                (best, low) = (cut, middle);
            } else {
                high = middle;
            }
        }
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_before_those_that_reached_the_limit_is_counted() {
        let mut counted = Counted::default();
        assert!(counted.may_reach(0, 10) && counted.may_reach(7, 10));
        for index in [4, 6] {
            counted.add(&BlockIds { index, input: 0, n_ids: 6, is_open: false });
        }
        assert!(counted.may_reach(3, 10) && counted.may_reach(5, 10), "late, but in front");
        assert!(!counted.may_reach(7, 10));
    }
}
