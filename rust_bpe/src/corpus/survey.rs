//! The first pass: documents, bytes and checksums, and all that the split and the later passes must know.

use std::collections::HashSet;

use rustc_hash::FxBuildHasher;

use super::block::{Block, Piece};
use super::input::{Format, Side, Source, character_start};
use super::split::SplitRequest;
use super::{Corpus, Pass};
use crate::checksum::Sha256;
use crate::error::Result;
use crate::monitor::Monitor;

#[derive(Clone, Copy, Debug)]
pub struct SurveyOptions {
    pub split: SplitRequest,
    /// Drop documents that were there before, byte for byte (by the first 128 bits of their sha256). Takes one thread,
    /// and about 32 bytes of memory a distinct document.
    pub drop_duplicates: bool,
    pub n_threads: usize,
}

/// What a corpus holds. Documents and bytes are those that count: neither empty nor dropped.
#[derive(Debug, Default)]
pub struct Survey {
    /// The inputs as they lay, in order.
    pub sources: Vec<Source>,
    pub totals: Totals,
    /// By [`Block::index`].
    blocks: Vec<BlockSurvey>,
    dropped: Bits,
}

/// Sums over a corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Of the inputs that are split.
    pub n_documents: u64,
    pub text_bytes: u64,
    /// Of those, what a split by hash would give validation.
    pub n_hash_val: u64,
    pub hash_val_bytes: u64,
    /// Of inputs that are validation as a whole.
    pub n_val_documents: u64,
    pub val_text_bytes: u64,
    pub n_empty: u64,
    pub n_duplicates: u64,
    /// Line ends inside documents of [`Format::Text`].
    pub n_lines: u64,
}

/// What one block holds of the text that is split.
#[derive(Clone, Copy, Debug, Default)]
struct BlockSurvey {
    index: usize,
    text_bytes: u64,
    /// Bytes of text in all blocks before.
    text_before: u64,
    head: Head,
}

/// The first bytes of a block's first document that counts: enough to know, without reading the block again, whether the
/// character at a place in them begins where the block does.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: [u8; 4],
    len: usize,
}

impl Survey {
    /// Reads `corpus` once. The monitor advances by bytes on disk.
    pub fn of(corpus: &Corpus, options: &SurveyOptions, monitor: &Monitor) -> Result<Self> {
        Self::with(corpus, Pass::First, options, monitor, || (), |(), _, looked| looked).map(|(survey, _)| survey)
    }

    /// The same by `pass`, with other work on each block on the way, as [`Corpus::each_block`] does it; told first how the
    /// look at the block ended.
    pub fn with<S: Send>(
        corpus: &Corpus,
        pass: Pass,
        options: &SurveyOptions,
        monitor: &Monitor,
        start: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &mut Block, Result<()>) -> Result<()> + Sync,
    ) -> Result<(Self, Vec<S>)> {
        let n_threads = if options.drop_duplicates { 1 } else { options.n_threads };
        let start = || (Surveyor::new(options), start());
        let look = |(surveyor, state): &mut (Surveyor, S), block: &mut Block| {
            let looked = surveyor.look(corpus, block);
            work(state, block, looked)
        };
        let (states, sources) = corpus.each_block(pass, n_threads, monitor, start, look)?;
        let (surveyors, states): (Vec<_>, Vec<_>) = states.into_iter().unzip();
        let mut survey = Self { sources, ..Self::default() };
        for surveyor in surveyors {
            survey.totals.add(&surveyor.totals);
            survey.blocks.extend(surveyor.blocks);
            survey.dropped.add(surveyor.dropped);
        }
        survey.blocks.sort_unstable_by_key(|block| block.index);
        let mut text_before = 0;
        for block in &mut survey.blocks {
            block.text_before = text_before;
            text_before += block.text_bytes;
        }
        Ok((survey, states))
    }

    /// Bytes of the text that is split in all blocks before this one.
    pub(super) fn text_before(&self, block: usize) -> u64 {
        self.blocks.get(block).map_or(self.totals.text_bytes, |block| block.text_before)
    }

    /// Whether an earlier document was the same.
    pub(super) fn is_dropped(&self, document: u64) -> bool {
        self.dropped.has(document)
    }

    /// Moves a place in the text that is split back to its character's start where that is the start of a block: only
    /// there two blocks must agree. Elsewhere the block that holds the place finds the character's start.
    pub(super) fn agreed_place(&self, place: u64) -> u64 {
        let holder = self.blocks.partition_point(|block| block.text_before + block.text_bytes <= place);
        let Some(block) = self.blocks.get(holder) else { return place };
        let inside = (place - block.text_before) as usize;
        let head = &block.head.bytes[..block.head.len];
        if inside < head.len() && character_start(head, inside) == 0 { block.text_before } else { place }
    }
}

/// The survey of the blocks that one thread takes.
struct Surveyor {
    split: SplitRequest,
    totals: Totals,
    blocks: Vec<BlockSurvey>,
    seen: Option<Seen>,
    dropped: Bits,
    /// What was read of the current document and is not counted yet.
    open: Vec<OpenPiece>,
}

struct OpenPiece {
    /// In `blocks`.
    block: usize,
    n_bytes: u64,
    head: Head,
}

impl Surveyor {
    fn new(options: &SurveyOptions) -> Self {
        Self {
            split: options.split,
            totals: Totals::default(),
            blocks: Vec::new(),
            seen: options.drop_duplicates.then(Seen::default),
            dropped: Bits::default(),
            open: Vec::new(),
        }
    }

    fn look(&mut self, corpus: &Corpus, block: &Block) -> Result<()> {
        let at = self.blocks.len();
        self.blocks.push(BlockSurvey { index: block.index, ..BlockSurvey::default() });
        let input = &corpus.inputs[block.input];
        block.pieces(corpus, |piece| {
            if input.format == Format::Text {
                self.totals.n_lines += memchr::memchr_iter(b'\n', piece.text).count() as u64;
            }
            self.look_at_piece(at, input.side, &piece);
            Ok(())
        })
    }

    fn look_at_piece(&mut self, block: usize, side: Side, piece: &Piece) {
        if piece.is_empty_document() {
            self.totals.n_empty += 1;
            return;
        }
        self.open.push(OpenPiece { block, n_bytes: piece.text.len() as u64, head: Head::of(piece.text) });
        if let Some(seen) = &mut self.seen {
            seen.hash.update(piece.text);
            if !piece.ends {
                return;
            }
            if !seen.is_new_document() {
                self.open.clear();
                self.totals.n_duplicates += 1;
                self.dropped.set(piece.document);
                return;
            }
        }
        let in_hash_val = side == Side::Train && self.split.hash_takes(piece.document);
        for open in self.open.drain(..) {
            if side == Side::Val {
                self.totals.val_text_bytes += open.n_bytes;
                continue;
            }
            self.totals.text_bytes += open.n_bytes;
            self.totals.hash_val_bytes += if in_hash_val { open.n_bytes } else { 0 };
            let block = &mut self.blocks[open.block];
            if block.text_bytes == 0 {
                block.head = open.head;
            }
            block.text_bytes += open.n_bytes;
        }
        if piece.ends {
            self.totals.n_documents += u64::from(side == Side::Train);
            self.totals.n_val_documents += u64::from(side == Side::Val);
            self.totals.n_hash_val += u64::from(in_hash_val);
        }
    }
}

impl Head {
    fn of(text: &[u8]) -> Self {
        let mut head = Head { bytes: [0; 4], len: text.len().min(4) };
        head.bytes[..head.len].copy_from_slice(&text[..head.len]);
        head
    }
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.n_documents += other.n_documents;
        self.text_bytes += other.text_bytes;
        self.n_hash_val += other.n_hash_val;
        self.hash_val_bytes += other.hash_val_bytes;
        self.n_val_documents += other.n_val_documents;
        self.val_text_bytes += other.val_text_bytes;
        self.n_empty += other.n_empty;
        self.n_duplicates += other.n_duplicates;
        self.n_lines += other.n_lines;
    }
}

/// Documents by their hashes.
#[derive(Default)]
struct Seen {
    hash: Sha256,
    documents: HashSet<u128, FxBuildHasher>,
}

impl Seen {
    /// Ends the current document; false when the same was there before.
    fn is_new_document(&mut self) -> bool {
        let digest = std::mem::take(&mut self.hash).finish();
        let first = digest.iter().take(16).fold(0, |bits, &byte| bits << 8 | u128::from(byte));
        self.documents.insert(first)
    }
}

/// A set of document numbers, one bit each.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, number: u64) {
        let word = (number / 64) as usize;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    fn has(&self, number: u64) -> bool {
        self.0.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn add(&mut self, other: Bits) {
        if other.0.len() > self.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }
}
