//! The files of a dataset: ids in one or several token files, and where each document begins.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::in_order::InOrder;
use crate::checksum::{Sha256, hexadecimal};
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::token::{Dtype, Id};

/// Text and ids that may wait for those of an earlier block, for each thread: of sixteen blocks as they mostly are.
const MOST_WAITING_BYTES: usize = 8 << 20;

/// A larger buffer, which an unusual block needed, is not kept.
const MOST_BUFFER_BYTES: usize = 4 << 20;

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

/// What a block gives.
pub(super) struct Made<T> {
    /// Of training and of validation.
    pub chunks: [Chunk<T>; 2],
    /// The number of the block's input and its bytes, where they are to be hashed here.
    pub text: Option<(usize, Vec<u8>)>,
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

/// Takes what blocks give from all threads, in any order.
pub(super) struct Output<'f, T> {
    order: InOrder<Made<T>, Writers<'f>>,
    buffers: Mutex<Buffers<T>>,
}

/// Of chunks that are written: memory that the kernel need not clear again for the next ones.
struct Buffers<T> {
    ids: Vec<Vec<T>>,
    texts: Vec<Vec<u8>>,
}

/// What was written, and from what.
pub(super) struct Written {
    pub train: SideReport,
    /// None where there is no validation text.
    pub val: Option<SideReport>,
    /// The sha256 of inputs that were hashed here, with their numbers.
    pub inputs: Vec<(usize, String)>,
}

struct Writers<'f> {
    train: SideWriter<'f>,
    val: Option<SideWriter<'f>>,
    /// The hashes of inputs, the last of the one that the next block may belong to.
    inputs: Vec<(usize, Sha256)>,
}

/// Bytes of an input that are hashed beside ids: two streams at once cost little more than the longer one.
#[derive(Default)]
struct Beside<'t> {
    hash: Option<&'t mut Sha256>,
    text: &'t [u8],
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

    fn create(&self, name: &str) -> Result<File> {
        let path = self.folder.join(name);
        File::create(&path).map_err(|source| Error::Io { path, source })
    }

    fn in_path(&self, name: &str) -> impl FnOnce(std::io::Error) -> Error {
        let path = self.folder.join(name);
        move |source| Error::Io { path, source }
    }
}

impl<'f, T: Id> Output<'f, T> {
    pub fn new(files: &'f Files, n_threads: usize) -> Result<Self> {
        let writers = Writers {
            train: SideWriter::new(files, "train")?,
            val: files.has_val.then(|| SideWriter::new(files, "val")).transpose()?,
            inputs: Vec::new(),
        };
        let buffers = Mutex::new(Buffers { ids: Vec::new(), texts: Vec::new() });
        Ok(Self { order: InOrder::new(writers, MOST_WAITING_BYTES * n_threads), buffers })
    }

    /// Empty chunks.
    pub fn chunks(&self) -> [Chunk<T>; 2] {
        let mut buffers = self.buffers();
        [(); 2].map(|()| Chunk { ids: buffers.ids.pop().unwrap_or_default(), document_ends: Vec::new(), text_bytes: 0 })
    }

    /// A buffer for the text of a block.
    pub fn text_buffer(&self) -> Vec<u8> {
        self.buffers().texts.pop().unwrap_or_default()
    }

    fn buffers(&self) -> MutexGuard<'_, Buffers<T>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what a block gives; blocks are numbered from 0. The caller answers an error with [`Output::abort`].
    pub fn put(&self, block: usize, mut made: Made<T>, monitor: &Monitor) -> Result<()> {
        made.chunks.iter_mut().flat_map(|chunk| &mut chunk.ids).for_each(|id| *id = id.to_le());
        let consume = |writers: &mut Writers, made: Made<T>| Ok((writers.append(&made)?, made));
        let size = made.size_bytes();
        self.order.put(block, (made, size), monitor, consume, |(places, made)| {
            for (places, chunk) in places.iter().zip(&made.chunks) {
                places.iter().try_for_each(|place| place.write(chunk.bytes()))?;
            }
            let mut buffers = self.buffers();
            buffers.texts.extend(made.text.map(|(_, text)| text).filter(is_usual));
            // Training's last, so that it is the first to be taken again, by training.
            let ids = made.chunks.into_iter().rev().map(|chunk| emptied(chunk.ids));
            buffers.ids.extend(ids.filter(is_usual));
            Ok(())
        })
    }

    /// Frees the threads that wait for an earlier block, because it will never come.
    pub fn abort(&self) {
        self.order.abort();
    }

    /// What was written when every block has been.
    pub fn finish(self) -> Result<Written> {
        let Writers { train, val, inputs } = self.order.into_consumer().ok_or(Error::Cancelled)?;
        let inputs = inputs.into_iter().map(|(input, hash)| (input, hexadecimal(&hash.finish()))).collect();
        Ok(Written { train: train.finish()?, val: val.map(SideWriter::finish).transpose()?, inputs })
    }
}

fn is_usual<T>(buffer: &Vec<T>) -> bool {
    buffer.capacity() * size_of::<T>() <= MOST_BUFFER_BYTES
}

fn emptied<T>(mut buffer: Vec<T>) -> Vec<T> {
    buffer.clear();
    buffer
}

impl<T: Id> Made<T> {
    fn size_bytes(&self) -> usize {
        let text = self.text.as_ref().map_or(0, |(_, text)| text.len());
        text + self.chunks.iter().map(|chunk| chunk.bytes().len()).sum::<usize>()
    }
}

impl<T: Id> Chunk<T> {
    /// Of ids that are in little-endian order.
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.ids)
    }
}

impl Writers<'_> {
    /// Takes the next block; returns the places that its chunks are to be written to.
    fn append<T: Id>(&mut self, made: &Made<T>) -> Result<[Vec<Place>; 2]> {
        let mut beside = Beside::default();
        if let Some((input, text)) = &made.text {
            if self.inputs.last().is_none_or(|(last, _)| last != input) {
                self.inputs.push((*input, Sha256::new()));
            }
            beside = Beside { hash: self.inputs.last_mut().map(|(_, hash)| hash), text };
        }
        let [train, val] = &made.chunks;
        let places = [
            self.train.append(train, &mut beside)?,
            self.val.as_mut().map_or(Ok(Vec::new()), |writer| writer.append(val, &mut beside))?,
        ];
        beside.hash_rest();
        Ok(places)
    }
}

impl Beside<'_> {
    /// Hashes `bytes` of another stream and, meanwhile, as much of the text.
    fn hash_with(&mut self, other: &mut Sha256, bytes: &[u8]) {
        let Some(hash) = &mut self.hash else { return other.update(bytes) };
        let (now, later) = self.text.split_at(bytes.len().min(self.text.len()));
        hash.update_with(now, other, bytes);
        self.text = later;
    }

    fn hash_rest(self) {
        if let Some(hash) = self.hash {
            hash.update(self.text);
        }
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
    fn append<T: Id>(&mut self, chunk: &Chunk<T>, beside: &mut Beside) -> Result<Vec<Place>> {
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
            beside.hash_with(&mut shard.hash, &bytes[start..end]);
            shard.n_tokens += n_ids;
            places.push(Place { file: shard.file.clone(), path, offset, range: start..end });
            self.n_tokens += n_ids;
            start = end;
        }
        Ok(places)
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
        for place in writer.append(&chunk, &mut Beside::default()).unwrap() {
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
