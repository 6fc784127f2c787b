//! One input file: opened, read in stretches, and watched for changes while the job runs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::packing::{Packing, Tallied};
use crate::error::{Error, Result};

/// How documents stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Between two end-of-text tokens, nothing trimmed; the whole file where there is none.
    Text,
    /// A line, without its final `\n` or `\r\n`.
    Lines,
    /// A string field of each line's JSON object.
    Jsonl,
    /// A string field of each record; the records come from a [`RecordSource`] (Parquet, through pyarrow).
    Records,
}

/// The half of a dataset that a document belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Train,
    Val,
}

/// A file to read. `side` is [`Side::Val`] for text that is validation as a whole, whatever the split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub path: PathBuf,
    pub packing: Packing,
    pub format: Format,
    pub side: Side,
}

/// An input as it lay on disk when it was first read, packed if it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub size_bytes: u64,
    /// In hexadecimal; empty until the pass that hashes, and where its work does.
    pub sha256: String,
    modified: Option<SystemTime>,
}

/// Records of a columnar file, a batch at a time.
pub trait RecordSource: Send {
    /// Appends a batch of documents to `bytes` and where each ends to `ends`; false after the last batch.
    fn next(&mut self, bytes: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<bool>;
}

/// Opens the records of a file.
pub type OpenRecords = dyn Fn(&Path) -> Result<Box<dyn RecordSource>> + Send + Sync;

/// Who hashes an input while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hashing {
    Nobody,
    Reader,
    /// Whoever gets the blocks.
    Work,
}

/// An input that is being read.
pub(super) struct Opened {
    path: PathBuf,
    raw: Tallied,
    hashing: Hashing,
    content: Content,
    size_bytes: u64,
    modified: Option<SystemTime>,
    /// Unpacked bytes that may still be read.
    left: u64,
    /// Whether the limit ended the reading before the file did.
    limited: bool,
    reported: u64,
}

enum Content {
    /// As they lie in the file.
    Plain,
    Bytes(Box<dyn Read + Send>),
    Records(Box<dyn RecordSource>),
}

impl Opened {
    pub(super) fn new(input: &Input, hashing: Hashing, records: Option<&OpenRecords>) -> Result<Self> {
        let in_path = |source| Error::Io { path: input.path.clone(), source };
        let file = File::open(&input.path).map_err(in_path)?;
        let metadata = file.metadata().map_err(in_path)?;
        if !metadata.is_file() {
            return Err(format_error(&input.path, "expected a file, found something else"));
        }
        let raw = Tallied::new(file, hashing == Hashing::Reader);
        let content = match (input.format, records) {
            (Format::Records, Some(open)) => Content::Records(open(&input.path)?),
            (Format::Records, None) => {
                return Err(Error::Setting("records need a reader of records, found none".into()));
            }
            _ if input.packing == Packing::None => Content::Plain,
            _ => Content::Bytes(input.packing.open(raw.clone()).map_err(in_path)?),
        };
        Ok(Self {
            path: input.path.clone(),
            raw,
            hashing,
            content,
            size_bytes: metadata.len(),
            modified: metadata.modified().ok(),
            left: u64::MAX,
            limited: false,
            reported: 0,
        })
    }

    /// Reads no more than so many unpacked bytes.
    pub(super) fn set_limit(&mut self, limit: Option<u64>) {
        self.left = limit.unwrap_or(u64::MAX);
    }

    /// Refuses a file that does not lie as it lay before.
    pub(super) fn check_unchanged(&self, before: Option<&Source>) -> Result<()> {
        match before {
            Some(before) if (before.size_bytes, before.modified) != (self.size_bytes, self.modified) => {
                Err(changed(&self.path))
            }
            _ => Ok(()),
        }
    }

    /// Appends up to `n_bytes` unpacked bytes; false when the file, or its limit, has come to its end.
    pub(super) fn read(&mut self, bytes: &mut Vec<u8>, n_bytes: usize) -> Result<bool> {
        let wanted = self.left.min(n_bytes as u64) as usize;
        let n_read = self.read_fully(bytes, wanted)?;
        self.left -= n_read as u64;
        if self.left == 0 {
            self.limited = self.read_fully(&mut Vec::new(), 1)? == 1;
        }
        Ok(n_read == n_bytes && self.left > 0)
    }

    /// Appends as many of `n_bytes` as there are.
    fn read_fully(&mut self, bytes: &mut Vec<u8>, n_bytes: usize) -> Result<usize> {
        let read = match &mut self.content {
            Content::Plain => self.raw.read_onto(bytes, n_bytes),
            Content::Bytes(reader) => read_fully(reader, bytes, n_bytes),
            Content::Records(_) => Ok(0),
        };
        read.map_err(|source| unreadable(&self.path, source))
    }

    /// Appends a batch of records to empty vectors; false after the last one, or once the limit is reached: the
    /// record that crosses it is cut there, at a character's start.
    pub(super) fn read_records(&mut self, bytes: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<bool> {
        let Content::Records(source) = &mut self.content else { return Ok(false) };
        if self.left == 0 || !source.next(bytes, ends)? {
            return Ok(false);
        }
        if bytes.len() as u64 > self.left {
            bytes.truncate(character_start(bytes, self.left as usize));
            let whole = ends.partition_point(|&end| end < bytes.len());
            ends.truncate(whole);
            ends.push(bytes.len());
            self.left = 0;
        } else {
            self.left -= bytes.len() as u64;
        }
        Ok(true)
    }

    /// Whether the limit ended the reading before the file did.
    pub(super) fn limited(&self) -> bool {
        self.limited
    }

    /// Bytes of the file on disk that were read since the last call.
    pub(super) fn progress(&mut self) -> u64 {
        let now = match self.content {
            Content::Plain | Content::Bytes(_) => self.raw.n_bytes(),
            Content::Records(_) => self.reported,
        };
        let step = now - self.reported.min(now);
        self.reported = now;
        step
    }

    /// Reads what a limit left (for the hash), checks that the file did not change, and returns it as it lies.
    pub(super) fn finish(mut self) -> Result<Source> {
        let in_path = |source| Error::Io { path: self.path.clone(), source };
        if self.hashing == Hashing::Reader {
            io::copy(&mut self.raw, &mut io::sink()).map_err(in_path)?;
        }
        let after = self.raw.metadata().map_err(in_path)?;
        let is_whole = self.hashing == Hashing::Nobody || self.raw.n_bytes() == self.size_bytes;
        if (after.len(), after.modified().ok()) != (self.size_bytes, self.modified) || !is_whole {
            return Err(changed(&self.path));
        }
        let sha256 = self.raw.sha256().unwrap_or_default();
        Ok(Source { size_bytes: self.size_bytes, sha256, modified: self.modified })
    }
}

/// The largest character start at or before `at`: at most three bytes back, as far as a character can reach; where no
/// character starts there (the text is not UTF-8), `at` itself.
pub(super) fn character_start(text: &[u8], at: usize) -> usize {
    let is_start = |&position: &usize| position == text.len() || text[position] & 0xC0 != 0x80;
    (at.saturating_sub(3)..=at).rev().find(is_start).unwrap_or(at)
}

fn read_fully(reader: &mut dyn Read, bytes: &mut Vec<u8>, n_bytes: usize) -> io::Result<usize> {
    let before = bytes.len();
    let mut filled = before;
    bytes.resize(before + n_bytes, 0);
    while filled < bytes.len() {
        match reader.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n_read) => filled += n_read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(filled - before)
}

pub(super) fn changed(path: &Path) -> Error {
    format_error(path, "changed while it was read: run again when nothing writes to it")
}

pub(super) fn format_error(path: &Path, message: impl Into<String>) -> Error {
    Error::Format { path: path.into(), message: message.into() }
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(_) => Error::Io { path: path.into(), source },
        // Not the system's word but a decoder's: the packing is damaged.
        None => format_error(path, format!("damaged: expected a whole packed file, found {source}")),
    }
}
