//! One side of a dataset: its ids in one or several token files, and where each document begins.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::checksum::{Sha256, Streams, hexadecimal};
use crate::error::{Error, Result};
use crate::token::{Dtype, Id};

/// Of the `.idx.npy` files: fixed, because how many documents there are is known at the end.
const NPY_HEADER_BYTES: usize = 128;

/// Where and how to write.
pub(super) struct Files {
    pub folder: PathBuf,
    pub dtype: Dtype,
    pub shard_tokens: Option<u64>,
    pub has_val: bool,
}

/// What one side of the dataset holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SideReport {
    pub files: Vec<TokenFile>,
    pub n_tokens: u64,
    pub n_documents: u64,
    /// Of the documents; an end of text counts none.
    pub text_bytes: u64,
}

/// A token file: raw little-endian ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile {
    pub name: String,
    pub n_tokens: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// Ids of one side that follow each other.
#[derive(Default)]
pub(super) struct Chunk<T> {
    pub ids: Vec<T>,
    /// How many of the ids stand before the end of each document that ends here.
    pub document_ends: Vec<u64>,
    pub text_bytes: u64,
}

/// A stretch of a chunk and its place on disk.
pub(super) struct Place {
    pub file: Arc<File>,
    pub path: PathBuf,
    pub offset: u64,
    pub range: std::ops::Range<usize>,
}

/// Takes the chunks of one side in order.
pub(super) struct SideWriter<'f> {
    files: &'f Files,
    name: &'static str,
    shards: Vec<Shard>,
    index: BufWriter<File>,
    n_tokens: u64,
    n_documents: u64,
    text_bytes: u64,
}

struct Shard {
    name: String,
    file: Arc<File>,
    n_tokens: u64,
    hash: Sha256,
}

impl Files {
    /// Writes a small file whole.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::write(&path, content).map_err(|source| Error::Io { path, source })
    }

    pub fn create(&self, name: &str) -> Result<File> {
        let path = self.folder.join(name);
        File::create(&path).map_err(|source| Error::Io { path, source })
    }

    pub fn in_path(&self, name: &str) -> impl FnOnce(std::io::Error) -> Error {
        let path = self.folder.join(name);
        move |source| Error::Io { path, source }
    }
}

impl<T: Id> Chunk<T> {
    /// Of ids that are in little-endian order.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.ids)
    }
}

impl<'f> SideWriter<'f> {
    /// `name` is `train` or `val`.
    pub fn new(files: &'f Files, name: &'static str) -> Result<Self> {
        let index_name = format!("{name}.idx.npy");
        let mut index = BufWriter::with_capacity(1 << 16, files.create(&index_name)?);
        let first = [[0; NPY_HEADER_BYTES].as_slice(), 0u64.to_le_bytes().as_slice()].concat();
        index.write_all(&first).map_err(files.in_path(&index_name))?;
        let mut writer = Self { files, name, shards: Vec::new(), index, n_tokens: 0, n_documents: 0, text_bytes: 0 };
        writer.add_shard()?;
        Ok(writer)
    }

    /// Takes the next chunk: notes its documents and says where its ids belong, which the caller writes there.
    pub fn places<T: Id>(&mut self, chunk: &Chunk<T>) -> Result<Vec<Place>> {
        for end in &chunk.document_ends {
            let written = self.index.write_all(&(self.n_tokens + end).to_le_bytes());
            written.map_err(self.files.in_path(&format!("{}.idx.npy", self.name)))?;
        }
        self.n_documents += chunk.document_ends.len() as u64;
        self.text_bytes += chunk.text_bytes;

        let size = size_of::<T>();
        let bytes = chunk.bytes();
        let mut places = Vec::with_capacity(1);
        let mut start = 0;
        while start < bytes.len() {
            let left = (bytes.len() - start) / size;
            let room = self.files.shard_tokens.map_or(u64::MAX, |most| most - self.last_shard().n_tokens);
            if room == 0 {
                self.add_shard()?;
                continue;
            }
            let n_ids = room.min(left as u64);
            let end = start + n_ids as usize * size;
            let path = self.files.folder.join(&self.last_shard().name);
            let shard = self.last_shard();
            let offset = shard.n_tokens * size as u64;
            shard.n_tokens += n_ids;
            places.push(Place { file: shard.file.clone(), path, offset, range: start..end });
            self.n_tokens += n_ids;
            start = end;
        }
        Ok(places)
    }

    /// Adds what there is to be hashed of a chunk that was given its `places`, the last ones.
    pub fn add_streams<'b, T: Id>(&'b mut self, chunk: &'b Chunk<T>, places: &[Place], streams: &mut Streams<'b>) {
        for (shard, place) in self.shards.iter_mut().rev().zip(places.iter().rev()) {
            streams.push(&mut shard.hash, &chunk.bytes()[place.range.clone()]);
        }
    }

    /// Ends the files.
    pub fn finish(mut self) -> Result<SideReport> {
        let index_name = format!("{}.idx.npy", self.name);
        let header = npy_header(self.n_documents + 1);
        let written = self.index.flush().and_then(|()| self.index.get_ref().write_all_at(&header, 0));
        written.map_err(self.files.in_path(&index_name))?;
        let file = |shard: Shard| TokenFile {
            name: shard.name,
            n_tokens: shard.n_tokens,
            sha256: hexadecimal(&shard.hash.finish()),
        };
        Ok(SideReport {
            files: self.shards.into_iter().map(file).collect(),
            n_tokens: self.n_tokens,
            n_documents: self.n_documents,
            text_bytes: self.text_bytes,
        })
    }

    fn last_shard(&mut self) -> &mut Shard {
        let last = self.shards.len() - 1; // there is one from the start on
        &mut self.shards[last]
    }

    fn add_shard(&mut self) -> Result<()> {
        let name = match self.files.shard_tokens {
            None => format!("{}.bin", self.name),
            Some(_) => format!("{}-{:05}.bin", self.name, self.shards.len()),
        };
        let file = Arc::new(self.files.create(&name)?);
        self.shards.push(Shard { name, file, n_tokens: 0, hash: Sha256::new() });
        Ok(())
    }
}

impl Place {
    /// Writes the stretch of `ids`, the chunk's.
    pub fn write(&self, ids: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(&ids[self.range.clone()], self.offset);
        written.map_err(|source| Error::Io { path: self.path.clone(), source })
    }
}

/// numpy's format 1.0 for a one-dimensional array of little-endian uint64.
fn npy_header(n_items: u64) -> Vec<u8> {
    let text = format!("{{'descr': '<u8', 'fortran_order': False, 'shape': ({n_items},), }}");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((NPY_HEADER_BYTES as u16 - 10).to_le_bytes());
    header.extend(text.bytes());
    header.resize(NPY_HEADER_BYTES - 1, b' ');
    header.push(b'\n');
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_above_four_gibibytes_is_written_in_its_place() {
        let folder = std::env::temp_dir().join(format!("rust-bpe-large-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = Files { folder: folder.clone(), dtype: Dtype::U16, shard_tokens: None, has_val: false };
        let mut writer = SideWriter::new(&files, "train").unwrap();
        // As if so many ids had been written before: on disk they are a hole.
        let n_before = (1 << 32) - 1;
        writer.n_tokens = n_before;
        writer.last_shard().n_tokens = n_before;
        let chunk = Chunk { ids: [7u16, 8, 9].map(u16::to_le).into(), document_ends: vec![1, 3], text_bytes: 5 };
        for place in writer.places(&chunk).unwrap() {
            place.write(chunk.bytes()).unwrap();
        }
        let report = writer.finish().unwrap();
        assert_eq!((report.n_tokens, report.files[0].n_tokens), (n_before + 3, n_before + 3));

        let tokens = File::open(folder.join("train.bin")).unwrap();
        assert_eq!(tokens.metadata().unwrap().len(), 2 * (n_before + 3));
        let mut found = [1; 6];
        tokens.read_exact_at(&mut found, 2 * n_before).unwrap();
        assert_eq!(found, [7, 0, 8, 0, 9, 0]);
        let index = std::fs::read(folder.join("train.idx.npy")).unwrap();
        let offsets: Vec<u8> = [0, n_before + 1, n_before + 3].iter().flat_map(|offset| offset.to_le_bytes()).collect();
        assert_eq!(index[NPY_HEADER_BYTES..], offsets);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
