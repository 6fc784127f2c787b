//! The one place where inputs are read in order: hands out blocks, cut where nothing is lost by cutting.

use std::ops::Range;

use memchr::{memchr_iter, memrchr};

use super::block::Block;
use super::input::{Format, Hashing, Opened, Source, character_start, format_error};
use super::jsonl::MAX_LINE_BYTES;
use super::{Corpus, Cut, Packing, Pass};
use crate::error::{Error, Result};
use crate::token::MAX_PRETOKEN_BYTES;

/// A stretch of one document without a place to cut ends in an error beyond this: it must be held in memory.
const MAX_BLOCK_BYTES: usize = 1 << 30;

/// Reads a corpus once. Blocks come out in order; what a block leaves over begins the next.
pub(super) struct Feed<'c> {
    corpus: &'c Corpus,
    pass: Pass<'c>,
    input: usize,
    opened: Option<Opened>,
    rest: Vec<u8>,
    n_blocks: usize,
    document: u64,
    first_document_of_input: u64,
    offset: u64,
    /// Where the next block begins in its input.
    start: u64,
    sources: Vec<Source>,
}

/// Where to cut, and what ends before it.
struct Found {
    cut: usize,
    n_documents: u64,
    /// Where the document that goes on behind the cut begins, if it begins here.
    last_begin: Option<usize>,
}

impl<'c> Feed<'c> {
    pub(super) fn new(corpus: &'c Corpus, pass: Pass<'c>) -> Self {
        Self {
            corpus,
            pass,
            input: 0,
            opened: None,
            rest: Vec::new(),
            n_blocks: 0,
            document: 0,
            first_document_of_input: 0,
            offset: 0,
            start: 0,
            sources: Vec::new(),
        }
    }

    /// The number of the block that comes next.
    pub(super) fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// The inputs read to their ends so far.
    pub(super) fn into_sources(self) -> Vec<Source> {
        self.sources
    }

    /// Fills `block` with the next one; false after the last.
    pub(super) fn next(&mut self, block: &mut Block) -> Result<bool> {
        let Some(input) = self.corpus.inputs.get(self.input) else { return Ok(false) };
        let mut opened = match self.opened.take() {
            Some(opened) => opened,
            None => self.open()?,
        };
        block.index = self.n_blocks;
        block.input = self.input;
        block.bytes.clear();
        block.end_markers.clear();
        block.record_ends.clear();
        block.first_document = self.document;
        block.first_in_input = self.document - self.first_document_of_input;
        block.first_offset = self.offset;
        block.start = self.start;
        block.ends_with_document = false;
        block.is_unhashed = self.hashing() == Hashing::Work;
        let more = if input.format == Format::Records {
            let more = opened.read_records(&mut block.bytes, &mut block.record_ends)?;
            self.document += block.record_ends.len() as u64;
            more
        } else {
            self.fill(&mut opened, block)?
        };
        block.source_bytes = opened.progress();
        self.start += block.bytes.len() as u64;
        self.n_blocks += 1;
        if more {
            self.opened = Some(opened);
        } else {
            self.sources.push(opened.finish()?);
            self.input += 1;
        }
        Ok(true)
    }

    fn open(&mut self) -> Result<Opened> {
        self.first_document_of_input = self.document;
        (self.offset, self.start) = (0, 0);
        let before = match self.pass {
            Pass::First | Pass::Only => None,
            Pass::Again(sources) | Pass::Last(sources) => Some(sources),
            Pass::Worked(sources) => sources,
        };
        let input = &self.corpus.inputs[self.input];
        let mut opened = Opened::new(input, self.hashing(), self.corpus.records.as_deref())?;
        opened.set_limit(self.corpus.limit_of(self.input));
        opened.check_unchanged(before.map(|sources| &sources[self.input]))?;
        Ok(opened)
    }

    /// Of the input at hand. Its blocks are all of it and nothing else where it is not packed, has no records and no limit.
    fn hashing(&self) -> Hashing {
        let input = &self.corpus.inputs[self.input];
        let is_its_blocks = input.packing == Packing::None
            && input.format != Format::Records
            && self.corpus.limit_of(self.input).is_none();
        match self.pass {
            Pass::First | Pass::Again(_) => Hashing::Nobody,
            Pass::Worked(_) if is_its_blocks => Hashing::Work,
            Pass::Only | Pass::Last(_) | Pass::Worked(_) => Hashing::Reader,
        }
    }

    /// Reads until there is a place to cut or the input ends; returns whether it goes on.
    fn fill(&mut self, opened: &mut Opened, block: &mut Block) -> Result<bool> {
        std::mem::swap(&mut block.bytes, &mut self.rest);
        let mut wanted = self.corpus.block_bytes;
        loop {
            let more = opened.read(&mut block.bytes, wanted)?;
            let found = if more { self.find_cut(block) } else { self.end(opened, block) };
            if let Some(found) = found {
                self.rest.clear();
                self.rest.extend_from_slice(&block.bytes[found.cut..]);
                block.bytes.truncate(found.cut);
                self.document += found.n_documents;
                self.offset = match found.last_begin {
                    Some(begin) => (found.cut - begin) as u64,
                    None => self.offset + found.cut as u64,
                };
                return Ok(more);
            }
            self.check_size(block)?;
            wanted = block.bytes.len(); // twice the bytes each time: the searches stay linear together
        }
    }

    /// The last place where the block's bytes may be cut while the input goes on behind them.
    fn find_cut(&self, block: &mut Block) -> Option<Found> {
        let Block { bytes, end_markers, .. } = block;
        let at_document = |cut: usize, n_documents| Found { cut, n_documents, last_begin: Some(cut) };
        match self.corpus.inputs[self.input].format {
            Format::Text => self.find_cut_in_text(bytes, end_markers),
            Format::Jsonl => {
                let cut = memrchr(b'\n', bytes)? + 1;
                Some(at_document(cut, memchr_iter(b'\n', &bytes[..cut]).count() as u64))
            }
            Format::Lines => match memrchr(b'\n', bytes) {
                Some(newline) => Some(at_document(newline + 1, memchr_iter(b'\n', &bytes[..=newline]).count() as u64)),
                None => {
                    // A return may belong to the line's end, which is not text.
                    let cut = self.corpus.cut.last(bytes.strip_suffix(b"\r").unwrap_or(bytes))?;
                    Some(Found { cut, n_documents: 0, last_begin: None })
                }
            },
            Format::Records => None,
        }
    }

    /// A marker that begins in the last bytes may go on, or be a longer one, behind them: only what begins before
    /// counts, and the cut stands before it too.
    fn find_cut_in_text(&self, bytes: &[u8], end_markers: &mut Vec<Range<usize>>) -> Option<Found> {
        let certain = (bytes.len() + 1).saturating_sub(self.corpus.markers.longest().max(1));
        let from = self.find_end_markers(bytes, certain, end_markers);
        if let Some(last) = end_markers.last() {
            return Some(Found { cut: last.end, n_documents: end_markers.len() as u64, last_begin: Some(last.end) });
        }
        let place = bytes.get(from..certain).and_then(|tail| self.corpus.cut.last(tail));
        let cut = place.map(|place| from + place).or((from > 0).then_some(from))?;
        Some(Found { cut, n_documents: 0, last_begin: None })
    }

    /// Replaces `found` by the markers that end documents, of those that begin before `certain`. Returns where the last
    /// marker of any kind ends.
    fn find_end_markers(&self, bytes: &[u8], certain: usize, found: &mut Vec<Range<usize>>) -> usize {
        found.clear();
        let mut from = 0;
        while let Some((range, _, ends)) = self.corpus.markers.find(bytes, from) {
            if range.start >= certain {
                break;
            }
            from = range.end;
            if ends {
                found.push(range);
            }
        }
        from
    }

    /// The end of an input: all that is left is the block, and what no marker or line end closes is a document.
    fn end(&self, opened: &Opened, block: &mut Block) -> Option<Found> {
        let format = self.corpus.inputs[self.input].format;
        let bytes = &mut block.bytes;
        if opened.limited() {
            match format {
                Format::Jsonl => bytes.truncate(memrchr(b'\n', bytes).map_or(0, |newline| newline + 1)),
                _ => bytes.truncate(whole_characters(bytes)),
            }
        }
        let (mut n_documents, begin) = if format == Format::Text {
            self.find_end_markers(bytes, bytes.len(), &mut block.end_markers);
            (block.end_markers.len() as u64, block.end_markers.last().map(|last| last.end))
        } else {
            let n_lines = memchr_iter(b'\n', bytes).count() as u64;
            (n_lines, memrchr(b'\n', bytes).map(|newline| newline + 1))
        };
        let is_first = self.document + n_documents == self.first_document_of_input;
        let is_open = begin.unwrap_or(0) < bytes.len() || (begin.is_none() && self.offset > 0);
        block.ends_with_document = is_open || (is_first && format == Format::Text);
        n_documents += u64::from(block.ends_with_document);
        Some(Found { cut: bytes.len(), n_documents, last_begin: Some(bytes.len()) })
    }

    fn check_size(&self, block: &Block) -> Result<()> {
        let input = &self.corpus.inputs[self.input];
        let n_bytes = block.bytes.len();
        let is_json = input.format == Format::Jsonl;
        let whole_only = matches!(&self.corpus.cut, Cut::Pretokens(pattern) if pattern.name() == "none");
        if is_json && n_bytes > MAX_LINE_BYTES {
            let line = block.first_in_input + 1;
            let limit = MAX_LINE_BYTES >> 20;
            Err(format_error(&input.path, format!("line {line}: expected at most {limit} MiB, found a longer line")))
        } else if !is_json && whole_only && n_bytes > MAX_PRETOKEN_BYTES {
            Err(Error::PreTokenTooLong { position: block.first_offset })
        } else if n_bytes > MAX_BLOCK_BYTES {
            let message = format!(
                "document {}: expected a place to cut within {} MiB, found none: split it, or choose another --pattern",
                block.first_in_input + 1,
                MAX_BLOCK_BYTES >> 20
            );
            Err(format_error(&input.path, message))
        } else {
            Ok(())
        }
    }
}

/// `bytes` without a last character that a limit cut.
fn whole_characters(bytes: &[u8]) -> usize {
    let start = bytes.len().checked_sub(1).map_or(0, |last| character_start(bytes, last));
    match std::str::from_utf8(&bytes[start..]) {
        Err(error) if error.error_len().is_none() => start,
        _ => bytes.len(),
    }
}
