//! Packings: .gz, .zst and .xz files read as what they hold, every member of them.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use crate::checksum::{Sha256, hexadecimal};

const READ_BYTES: usize = 256 << 10;

/// A file that asks for more to be unpacked is refused, as zstd does by itself above 128 MiB. `xz -9` asks for 64 MiB.
const MAX_XZ_MEMORY_KIB: u32 = 512 << 10;

/// How a file is packed. The caller knows it, by the file's ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Packing {
    #[default]
    None,
    Gzip,
    Zstd,
    Xz,
}

impl Packing {
    /// The name in messages and bindings: `none`, `gz`, `zst` or `xz`.
    pub fn name(self) -> &'static str {
        match self {
            Packing::None => "none",
            Packing::Gzip => "gz",
            Packing::Zstd => "zst",
            Packing::Xz => "xz",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Packing::None, Packing::Gzip, Packing::Zstd, Packing::Xz].into_iter().find(|packing| packing.name() == name)
    }

    /// Reads `file` unpacked, all members and frames one after the other; a damaged or cut file ends in an error.
    pub(super) fn open(self, file: Tallied) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Packing::None => Box::new(file),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, file))),
            Packing::Zstd => {
                Box::new(zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(READ_BYTES, file))?)
            }
            Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
                BufReader::with_capacity(READ_BYTES, file),
                true,
                MAX_XZ_MEMORY_KIB,
            )),
        })
    }
}

/// A file as it lies on disk, with the bytes read so far counted and, when asked for, hashed.
#[derive(Clone)]
pub(super) struct Tallied(Arc<Mutex<Tally>>);

struct Tally {
    file: File,
    n_bytes: u64,
    hash: Option<Sha256>,
}

impl Tallied {
    pub(super) fn new(file: File, hashed: bool) -> Self {
        Self(Arc::new(Mutex::new(Tally { file, n_bytes: 0, hash: hashed.then(Sha256::new) })))
    }

    /// Appends up to `n_bytes` bytes to `bytes`. Room for them is not cleared first, as [`Read::read`] needs it.
    pub(super) fn read_onto(&self, bytes: &mut Vec<u8>, n_bytes: usize) -> io::Result<usize> {
        self.tally(|tally| {
            let before = bytes.len();
            bytes.reserve(n_bytes);
            let n_read = tally.file.by_ref().take(n_bytes as u64).read_to_end(bytes)?;
            tally.note(&bytes[before..]);
            Ok(n_read)
        })
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.tally(|tally| tally.n_bytes)
    }

    pub(super) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.tally(|tally| tally.file.metadata())
    }

    /// The sha256 of what was read, in hexadecimal; None when it was not asked for.
    pub(super) fn sha256(&self) -> Option<String> {
        self.tally(|tally| tally.hash.clone().map(|hash| hexadecimal(&hash.finish())))
    }

    fn tally<T>(&self, look: impl FnOnce(&mut Tally) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tally {
    fn note(&mut self, bytes: &[u8]) {
        self.n_bytes += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
    }
}

impl Read for Tallied {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tally(|tally| {
            let n_bytes = tally.file.read(buffer)?;
            tally.note(&buffer[..n_bytes]);
            Ok(n_bytes)
        })
    }
}
