//! What blocks give, taken from all threads and written in the order of blocks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::in_order::InOrder;
use super::side::{Chunk, Files, Place, SideReport, SideWriter};
use crate::checksum::{Sha256, Streams, hexadecimal};
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::token::Id;

/// Text and ids that may wait for those of an earlier block, for each thread: of sixteen blocks as they mostly are.
const MOST_WAITING_BYTES: usize = 8 << 20;

/// A larger buffer, which an unusual block needed, is not kept.
const MOST_BUFFER_BYTES: usize = 4 << 20;

/// What a block gives.
pub(super) struct Made<T> {
    /// Of training and of validation.
    pub chunks: [Chunk<T>; 2],
    /// The number of the block's input and its bytes, where they are to be hashed here.
    pub text: Option<(usize, Vec<u8>)>,
}

/// Takes what blocks give from all threads, in any order.
pub(super) struct Output<'f, T> {
    order: InOrder<Made<T>, Writers<'f>>,
    buffers: Mutex<Buffers<T>>,
    /// Whether there is one thread.
    is_alone: bool,
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

impl<'f, T: Id> Output<'f, T> {
    pub fn new(files: &'f Files, n_threads: usize) -> Result<Self> {
        let writers = Writers {
            train: SideWriter::new(files, "train")?,
            val: files.has_val.then(|| SideWriter::new(files, "val")).transpose()?,
            inputs: Vec::new(),
        };
        let buffers = Mutex::new(Buffers { ids: Vec::new(), texts: Vec::new() });
        Ok(Self { order: InOrder::new(writers, MOST_WAITING_BYTES * n_threads), buffers, is_alone: n_threads == 1 })
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
    pub fn put(&self, block: usize, made: Made<T>, monitor: &Monitor) -> Result<()> {
        self.leave_but(0, block, made, monitor)
    }

    /// The same, but the only thread leaves the last one for [`Output::beside`]. Of several, one would hold the writers while it
    /// encodes, and hash what the others left, which is in their caches: two took 4 to 12 % longer.
    pub fn leave(&self, block: usize, made: Made<T>, monitor: &Monitor) -> Result<()> {
        self.leave_but(usize::from(self.is_alone), block, made, monitor)
    }

    fn leave_but(&self, n_waiting: usize, block: usize, mut made: Made<T>, monitor: &Monitor) -> Result<()> {
        made.chunks.iter_mut().flat_map(|chunk| &mut chunk.ids).for_each(|id| *id = id.to_le());
        let size = made.size_bytes();
        let write = |taken| self.write(taken, |_| ());
        self.order.leave(block, (made, size), monitor, write)?;
        while let Some(taken) = self.order.take_beyond(n_waiting) {
            write(taken)?;
        }
        Ok(())
    }

    /// Does `work`, and writes an earlier block where one is left whose turn it is. `work` gets what there is to be hashed of
    /// it, and may do some of that beside what it does.
    pub fn beside<R>(&self, work: impl FnOnce(&mut Streams) -> R) -> Result<R> {
        match self.is_alone.then(|| self.order.take_beyond(0)).flatten() {
            Some(taken) => self.write(taken, work),
            None => Ok(work(&mut Streams::default())),
        }
    }

    fn write<R>(&self, (mut writers, made): (Writers<'f>, Made<T>), work: impl FnOnce(&mut Streams) -> R) -> Result<R> {
        let places = writers.places(&made)?;
        let mut streams = writers.streams(&made, &places);
        let worked = work(&mut streams);
        streams.finish();
        self.order.give_back(writers);
        for (places, chunk) in places.iter().zip(&made.chunks) {
            places.iter().try_for_each(|place| place.write(chunk.bytes()))?;
        }
        let mut buffers = self.buffers();
        buffers.texts.extend(made.text.map(|(_, text)| text).filter(is_usual));
        // Training's last, so that it is the first to be taken again, by training.
        let ids = made.chunks.into_iter().rev().map(|chunk| emptied(chunk.ids));
        buffers.ids.extend(ids.filter(is_usual));
        Ok(worked)
    }

    /// Frees the threads that wait for an earlier block, because it will never come.
    pub fn abort(&self) {
        self.order.abort();
    }

    /// What was written when every block has been.
    pub fn finish(self) -> Result<Written> {
        while let Some(taken) = self.order.take_beyond(0) {
            self.write(taken, |_| ())?;
        }
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

impl Writers<'_> {
    /// Takes the next block; returns the places that its chunks are to be written to.
    fn places<T: Id>(&mut self, made: &Made<T>) -> Result<[Vec<Place>; 2]> {
        if let Some((input, _)) = &made.text
            && self.inputs.last().is_none_or(|(last, _)| last != input)
        {
            self.inputs.push((*input, Sha256::new()));
        }
        let [train, val] = &made.chunks;
        Ok([self.train.places(train)?, self.val.as_mut().map_or(Ok(Vec::new()), |writer| writer.places(val))?])
    }

    /// What there is to be hashed of a block that was given its `places`.
    fn streams<'b, T: Id>(&'b mut self, made: &'b Made<T>, places: &[Vec<Place>; 2]) -> Streams<'b> {
        let mut streams = Streams::default();
        if let (Some((_, text)), Some((_, hash))) = (&made.text, self.inputs.last_mut()) {
            streams.push(hash, text);
        }
        let writers = std::iter::once(&mut self.train).chain(&mut self.val);
        for (writer, (chunk, places)) in writers.zip(made.chunks.iter().zip(places)) {
            writer.add_streams(chunk, places, &mut streams);
        }
        streams
    }
}
