//! Where text comes from: inputs, packings, formats, documents, and blocks that several threads can take.
//!
//! A corpus is read several times: once to be surveyed (how many documents and bytes, which half each belongs to), once
//! to count words, once to be encoded. Each time one thread at a time reads on and cuts off a block, at the end of a
//! document or where its pattern certainly has a boundary; the work on blocks runs beside it on all threads. Nothing the
//! size of the corpus is ever held. Blocks are the same in each pass, and no result depends on their size.

mod block;
mod cut;
mod documents;
mod feed;
mod input;
mod jsonl;
mod markers;
mod packing;
mod split;
mod survey;

use std::sync::{Mutex, PoisonError};

pub use block::{Block, Piece};
pub use cut::Cut;
pub use input::{Format, Input, OpenRecords, RecordSource, Side, Source};
pub use jsonl::Field;
pub use markers::{Markers, Stretch};
pub use packing::Packing;
pub use split::{Part, Split, SplitMethod, SplitRequest};
pub use survey::{Survey, SurveyOptions, Totals};

use crate::error::{Error, Result};
use crate::monitor::Monitor;
use feed::Feed;

/// Read at a time by one thread. Large enough that taking one costs nothing, small enough that its text, once read, and its
/// ids stay in a second-level cache until they are hashed: English took 5 % longer by 1 MiB, 2 % by 128 KiB.
pub const BLOCK_BYTES: usize = 256 << 10;

/// How often the corpus has been read.
#[derive(Clone, Copy)]
pub enum Pass<'s> {
    First,
    /// The same, and the inputs are hashed on the way, so that no later pass has to.
    Only,
    /// Inputs that do not lie as an earlier pass found them are an error.
    Again(&'s [Source]),
    /// The same, and the inputs are hashed on the way: the work of the last pass is the longest, and hides it.
    Last(&'s [Source]),
    /// As [`Pass::Only`] or, given sources, [`Pass::Last`], but inputs whose blocks are their bytes are left to the work to
    /// hash ([`Block::take_unhashed`]), which has other bytes to hash beside them.
    Worked(Option<&'s [Source]>),
}

/// What to read and how.
pub struct Corpus {
    /// In the order of the documents.
    pub inputs: Vec<Input>,
    /// Special tokens in files of [`Format::Text`]; elsewhere every string is text.
    pub markers: Markers,
    /// The field of [`Format::Jsonl`].
    pub field: Field,
    /// Where documents larger than a block may be cut.
    pub cut: Cut,
    /// Unpacked bytes to read at most, for each input; shorter than `inputs` or None where there is no limit.
    pub limits: Vec<Option<u64>>,
    pub block_bytes: usize,
    /// The reader of [`Format::Records`].
    pub records: Option<Box<OpenRecords>>,
}

impl Corpus {
    /// Reads all of it once on `n_threads` threads: each makes its state by `start` and calls `work` for each block that
    /// it takes. Returns the states, in no order, and the inputs as they lay.
    ///
    /// # Errors
    /// The one of the earliest block that had one, with the input's path; [`Error::Cancelled`] by the monitor, which
    /// advances by bytes on disk.
    pub fn each_block<S: Send>(
        &self,
        pass: Pass,
        n_threads: usize,
        monitor: &Monitor,
        start: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &mut Block) -> Result<()> + Sync,
    ) -> Result<(Vec<S>, Vec<Source>)> {
        let feed = Mutex::new(Some(Feed::new(self, pass)));
        let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let fail = |index: usize, error: Error| {
            *lock(&feed) = None; // nobody takes another block
            let mut failure = lock(&failure);
            // Threads that were freed because of an error are cancelled, and that is not what happened.
            let rank = |index, error: &Error| (matches!(error, Error::Cancelled), index);
            if failure.as_ref().is_none_or(|(earlier, first)| rank(index, &error) < rank(*earlier, first)) {
                *failure = Some((index, error));
            }
        };
        let sources = Mutex::new(Vec::new());
        let run = || {
            let mut state = start();
            let mut block = Block::default();
            loop {
                let mut guard = lock(&feed);
                let Some(reader) = guard.as_mut() else { break };
                let index = reader.n_blocks();
                let taken = reader.next(&mut block);
                if let Ok(false) = taken {
                    *lock(&sources) = guard.take().map(Feed::into_sources).unwrap_or_default();
                }
                drop(guard);
                let worked = match taken {
                    Ok(false) => break,
                    Ok(true) => work(&mut state, &mut block).map_err(|error| self.in_input(&block, error)),
                    Err(error) => Err(error),
                };
                if let Err(error) = worked.and_then(|()| monitor.advance(block.source_bytes())) {
                    fail(index, error);
                    break;
                }
            }
            state
        };
        let states = std::thread::scope(|scope| {
            let others: Vec<_> = (1..n_threads).map(|_| scope.spawn(run)).collect();
            let mut states = vec![run()];
            states.extend(others.into_iter().map(|thread| match thread.join() {
                Ok(state) => state,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
            states
        });
        match lock(&failure).take() {
            Some((_, error)) => Err(error),
            None => Ok((states, std::mem::take(&mut *lock(&sources)))),
        }
    }

    /// Visits the stretches of a piece of a document with where each begins: text, and special tokens in files of text.
    pub fn stretches<'t>(
        &self,
        input: usize,
        text: &'t [u8],
        mut visit: impl FnMut(usize, Stretch<'t>) -> Result<()>,
    ) -> Result<()> {
        match self.inputs[input].format {
            Format::Text => self.markers.stretches(text, visit),
            _ if text.is_empty() => Ok(()),
            _ => visit(0, Stretch::Text(text)),
        }
    }

    /// The last place in the first `within` bytes of a piece, not 0, where it may be cut.
    pub fn last_cut(&self, input: usize, text: &[u8], within: usize) -> Option<usize> {
        let (mut start, mut end) = (0, within);
        if self.inputs[input].format == Format::Text {
            while let Some((range, ..)) = self.markers.find(text, start).filter(|(range, ..)| range.start < within) {
                if range.end > within {
                    end = range.start; // not inside a marker
                    break;
                }
                start = range.end;
            }
        }
        let cut = self.cut.last(&text[start..end]).map(|cut| start + cut);
        cut.or((start > 0).then_some(start))
    }

    /// Bytes that will be read at most, of packed inputs as they lie on disk.
    pub fn size_bytes(&self) -> u64 {
        let size = |input: &Input| input.path.metadata().map_or(0, |found| found.len());
        let sizes = self.inputs.iter().enumerate();
        sizes.map(|(number, input)| size(input).min(self.limit_of(number).unwrap_or(u64::MAX))).sum()
    }

    fn limit_of(&self, input: usize) -> Option<u64> {
        self.limits.get(input).copied().flatten()
    }

    /// Says in which input an error about text arose.
    fn in_input(&self, block: &Block, error: Error) -> Error {
        let path = &self.inputs[block.input].path;
        match error {
            Error::Text { .. } | Error::PreTokenTooLong { .. } => input::format_error(path, error.to_string()),
            other => other,
        }
    }
}

/// A lock that a panicking thread left is as good as any: the panic is passed on when its thread is joined.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
