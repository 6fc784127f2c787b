//! Notes of the words of a corpus, made while they are counted: its ids are then put together from them, and the text is
//! not read again.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Reading;
use crate::corpus::{Block, Side, Stretch};
use crate::error::Result;
use crate::pretokenize::Pattern;
use crate::words::{N_TIERS, TIER_SHIFT, WordCounter};

/// Of all notes together, or of the text that they stand for, whichever is more: the ids of rare long words, which notes
/// hold too at the end, are bounded by the text. Beyond it notes are dropped, and the text is read again.
pub const NOTE_BYTES: usize = 512 << 20;

/// In the place of a word: the end of a document, and behind it the markers by their numbers.
pub(super) const NO_WORD: u32 = (N_TIERS as u32) << TIER_SHIFT;

/// What a counting thread has.
#[derive(Default)]
pub(super) struct Counter {
    words: WordCounter,
    /// None where there is no room.
    notes: Vec<Note>,
    numbers: [Vec<u32>; 2],
}

/// The words of a block, by side.
pub(super) struct Note {
    pub block: usize,
    pub source_bytes: u64,
    pub sides: [SideNote; 2],
}

#[derive(Default)]
pub(super) struct SideNote {
    /// Words by the numbers of [`WordCounter::note`], and [`NO_WORD`] with what else gives ids.
    pub numbers: Box<[u32]>,
    /// How many of the numbers stand before the end of each document that ends here.
    pub document_ends: Vec<u32>,
    pub text_bytes: u64,
}

/// How much may be noted yet.
pub(super) struct Room(AtomicUsize);

impl Room {
    pub fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    /// Whether all that was asked for was there.
    pub fn has_been_enough(&self) -> bool {
        self.0.load(Relaxed) > 0
    }

    /// Takes `bytes`. What is not there is never there again.
    fn take(&self, bytes: usize) -> bool {
        let left = self.0.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(bytes)));
        left.is_ok_and(|left| left > bytes)
    }
}

impl Counter {
    /// Counts the training words of a block, and notes all of it where there is `room`.
    ///
    /// `check` looks at each stretch of text before it is counted.
    pub fn count(
        &mut self,
        reading: &Reading,
        block: &Block,
        pattern: &Pattern,
        check: impl Fn(&[u8]) -> Result<()>,
        room: &Room,
    ) -> Result<()> {
        if !room.has_been_enough() {
            self.notes = Vec::new();
            return reading.training_text(block, |text| check(text).and_then(|()| self.words.add(pattern, text)));
        }
        let Self { words, notes, numbers } = self;
        numbers.iter_mut().for_each(Vec::clear);
        let mut sides: [SideNote; 2] = Default::default();
        let corpus = reading.corpus;
        reading.survey.parts(corpus, reading.split, block, |part| {
            let index = usize::from(part.side == Side::Val);
            let (numbers, side) = (&mut numbers[index], &mut sides[index]);
            let count = u64::from(part.side == Side::Train);
            let noted = corpus.stretches(block.input, part.text, |start, stretch| match stretch {
                Stretch::Text(text) => {
                    let noted = check(text).and_then(|()| words.note(pattern, text, count, numbers));
                    noted.map_err(|error| error.moved(start as u64))
                }
                Stretch::Special(number) => {
                    numbers.push(NO_WORD + 1 + number as u32);
                    Ok(())
                }
            });
            noted.map_err(|error| block.in_document(part.document, part.offset, error))?;
            side.text_bytes += part.text.len() as u64;
            if part.ends {
                numbers.push(NO_WORD);
                side.document_ends.push(numbers.len() as u32);
            }
            Ok(())
        })?;
        for (side, numbers) in sides.iter_mut().zip(numbers) {
            side.numbers = numbers.as_slice().into();
        }
        let n_numbers = sides.iter().map(|side| side.numbers.len() + side.document_ends.len()).sum::<usize>();
        let text_bytes = sides.iter().map(|side| side.text_bytes).sum::<u64>() as usize;
        if room.take(text_bytes.max(size_of::<Note>() + size_of::<u32>() * n_numbers)) {
            notes.push(Note { block: block.index, source_bytes: block.source_bytes(), sides });
        }
        Ok(())
    }

    /// The words that were counted, and the notes of the blocks.
    pub fn into_parts(self) -> (WordCounter, Vec<Note>) {
        (self.words, self.notes)
    }
}
