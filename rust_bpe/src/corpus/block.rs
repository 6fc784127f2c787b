//! A block: a stretch of an input that one thread takes, and the documents in it.

use std::ops::Range;

use memchr::memchr_iter;

use super::Corpus;
use super::input::{Format, format_error};
use crate::error::{Error, Result};

/// Bytes of one input, cut at the end of a document or where a document may be cut. Reused from block to block.
#[derive(Default)]
pub struct Block {
    /// Blocks count from 0, in the order of the corpus, the same in each pass.
    pub index: usize,
    /// The number of the input.
    pub input: usize,
    pub(super) bytes: Vec<u8>,
    /// The markers that end documents, for [`Format::Text`].
    pub(super) end_markers: Vec<Range<usize>>,
    /// Where each record ends, for [`Format::Records`].
    pub(super) record_ends: Vec<usize>,
    /// The document in which the block begins, counted from 0 over the whole corpus, empty ones included.
    pub(super) first_document: u64,
    /// The same, counted from 0 in its input.
    pub(super) first_in_input: u64,
    /// How many bytes of that document stand in earlier blocks.
    pub(super) first_offset: u64,
    /// Where the block begins in the unpacked input; among the texts of records, for those.
    pub(super) start: u64,
    /// Whether the input ends with the block, and with a document that no marker or line end closes.
    pub(super) ends_with_document: bool,
    pub(super) source_bytes: u64,
    /// Whether the bytes are the input's own, which the work on the block has to hash.
    pub(super) is_unhashed: bool,
}

/// What a block holds of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'b> {
    /// The document's number in the corpus, empty ones included.
    pub document: u64,
    /// How many bytes of the document stand in earlier blocks.
    pub offset: u64,
    pub text: &'b [u8],
    /// Whether the document ends here.
    pub ends: bool,
    /// Where the piece stands in the unpacked input, with what ends it. Text begins at its start, JSON apart.
    pub source: Range<u64>,
}

impl Piece<'_> {
    /// Whether the whole document is empty.
    pub fn is_empty_document(&self) -> bool {
        self.offset == 0 && self.ends && self.text.is_empty()
    }
}

impl Block {
    /// Bytes of the file on disk that were read for this block, for progress.
    pub fn source_bytes(&self) -> u64 {
        self.source_bytes
    }

    /// The bytes of the block where [`Pass::Worked`] leaves it to the work to hash them, in the order of blocks; the block
    /// has none after that. `spare` is a buffer for the next one.
    ///
    /// [`Pass::Worked`]: super::Pass::Worked
    pub fn take_unhashed(&mut self, spare: impl FnOnce() -> Vec<u8>) -> Option<Vec<u8>> {
        self.is_unhashed.then(|| std::mem::replace(&mut self.bytes, spare()))
    }

    /// Says in which document of the input, and where in it, an error about text arose that stands `offset` bytes in.
    pub fn in_document(&self, document: u64, offset: u64, error: Error) -> Error {
        let number = self.first_in_input + (document - self.first_document) + 1;
        match error.moved(offset) {
            Error::Text { position, message } => {
                Error::Text { position, message: format!("document {number}: {message}") }
            }
            other => other,
        }
    }

    /// Visits the pieces in order, empty documents included.
    ///
    /// # Errors
    /// What `visit` returns; [`crate::Error::Format`] with the line of a JSON record that is none.
    pub fn pieces(&self, corpus: &Corpus, mut visit: impl FnMut(Piece) -> Result<()>) -> Result<()> {
        let input = &corpus.inputs[self.input];
        let bytes = &self.bytes[..];
        let mut place = Place { document: self.first_document, offset: self.first_offset, at: self.start };
        let mut start = 0;
        match input.format {
            Format::Text => {
                for marker in &self.end_markers {
                    visit(place.end(&bytes[start..marker.start], marker.end - start))?;
                    start = marker.end;
                }
            }
            Format::Lines => {
                for newline in memchr_iter(b'\n', bytes) {
                    let line = &bytes[start..newline];
                    visit(place.end(line.strip_suffix(b"\r").unwrap_or(line), line.len() + 1))?;
                    start = newline + 1;
                }
            }
            Format::Jsonl => {
                let ends = memchr_iter(b'\n', bytes).chain(self.ends_with_document.then_some(bytes.len()));
                for end in ends {
                    let text = corpus.field.read(&bytes[start..end]).map_err(|message| {
                        let line = self.first_in_input + place.document - self.first_document + 1;
                        format_error(&input.path, format!("line {line}: {message}"))
                    })?;
                    visit(place.end(&text, end - start + 1))?;
                    start = end + 1;
                }
                return Ok(());
            }
            Format::Records => {
                for &end in &self.record_ends {
                    visit(place.end(&bytes[start..end], end - start))?;
                    start = end;
                }
            }
        }
        let rest = &bytes[start..];
        if self.ends_with_document {
            visit(place.end(rest, rest.len()))
        } else if !rest.is_empty() {
            let source = place.at..place.at + rest.len() as u64;
            visit(Piece { document: place.document, offset: place.offset, text: rest, ends: false, source })
        } else {
            Ok(())
        }
    }
}

/// Where the next piece belongs.
struct Place {
    document: u64,
    offset: u64,
    /// In the unpacked input.
    at: u64,
}

impl Place {
    /// The piece that ends the current document and takes so many bytes of the input.
    fn end<'t>(&mut self, text: &'t [u8], source_bytes: usize) -> Piece<'t> {
        let Place { document, offset, at } = *self;
        let end = at + source_bytes as u64;
        *self = Place { document: document + 1, offset: 0, at: end };
        Piece { document, offset, text, ends: true, source: at..end }
    }
}
