//! The pass that writes, without the text: ids put together from the notes of counting, by all threads.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::notes::{NO_WORD, Note, SideNote};
use super::output::{Made, Output, Written};
use super::side::{Chunk, Files};
use crate::corpus::Markers;
use crate::encode::{Cache, Encoder, Id};
use crate::error::{Error, Result};
use crate::memory;
use crate::monitor::Monitor;
use crate::parallel;
use crate::token::{Dtype, TokenId};
use crate::words::{N_TIERS, TIER_SHIFT, WordCounter};

/// All that was noted of a corpus, and what its ids are made by.
pub(super) struct Noted<'n> {
    /// With the words of the notes beside each.
    pub counters: &'n [WordCounter],
    pub notes: &'n [Vec<Note>],
    pub encoder: &'n Encoder,
    pub markers: &'n Markers,
    pub end_of_text: Option<TokenId>,
}

impl Noted<'_> {
    /// Writes the ids into `files`.
    pub fn write(&self, files: &Files, monitor: &Monitor) -> Result<Written> {
        match files.dtype {
            Dtype::U16 => self.write_as::<u16>(files, monitor),
            Dtype::U32 => self.write_as::<u32>(files, monitor),
        }
    }

    fn write_as<T: Id>(&self, files: &Files, monitor: &Monitor) -> Result<Written> {
        let &Self { counters, notes, encoder, markers, end_of_text } = self;
        let specials = encoder.vocabulary().special_tokens();
        let marker_ids = markers.strings().iter().map(|name| specials.id_of(name));
        let others: Vec<Option<TokenId>> = std::iter::once(end_of_text).chain(marker_ids).collect();
        let tables = parallel::map(counters, |counter| IdTable::<T>::new(counter, encoder, &others));
        let tables = tables.into_iter().collect::<Result<Vec<_>>>()?;

        let with_table = |(notes, table)| std::iter::zip::<&Vec<Note>, _>(notes, std::iter::repeat(table));
        let mut notes: Vec<(&Note, &IdTable<T>)> = notes.iter().zip(&tables).flat_map(with_table).collect();
        notes.sort_unstable_by_key(|(note, _)| note.block);
        let output = Output::<T>::new(files, counters.len())?;
        let next = AtomicUsize::new(0);
        let work = |_| {
            while let Some((note, table)) = notes.get(next.fetch_add(1, Relaxed)) {
                let mut chunks = output.chunks();
                chunks.iter_mut().zip(&note.sides).for_each(|(chunk, side)| table.fill(chunk, side));
                let put = output.put(note.block, Made { chunks, text: None }, monitor);
                put.and_then(|()| monitor.advance(note.source_bytes)).inspect_err(|_| output.abort())?;
            }
            Ok(())
        };
        let outcomes = parallel::map(0..counters.len(), work);
        // A thread that waited for the block of another one says no more than that it was stopped.
        let (stopped, failed): (Vec<_>, Vec<_>) =
            outcomes.into_iter().filter_map(Result::err).partition(|error| matches!(error, Error::Cancelled));
        match failed.into_iter().chain(stopped).next() {
            Some(error) => Err(error),
            None => output.finish(),
        }
    }
}

/// Ids in an entry, and behind them their number.
const ROOM: usize = 7;

/// In place of the number of ids: the first four are the place of the ids among the spilled ones, in pieces of 16 bits.
const SPILLED: TokenId = 8;

/// The ids of the words of one counter, by their numbers.
struct IdTable<T> {
    entries: Vec<[T; ROOM + 1]>,
    /// Where the entries of each tier begin, and those of what is no word.
    bases: [u32; N_TIERS + 1],
    spilled: Vec<T>,
}

impl<T: Id> IdTable<T> {
    fn new(words: &WordCounter, encoder: &Encoder, others: &[Option<TokenId>]) -> Result<Self> {
        let [short, medium, long] = words.tier_sizes().map(|size| size as u32); // noted, so fewer than 2^30
        let bases = [0, short, short + medium, short + medium + long];
        let n_entries = bases[N_TIERS] as usize + others.len();
        let mut table =
            Self { entries: memory::filled([T::default(); ROOM + 1], n_entries), bases, spilled: Vec::new() };
        let mut cache = Cache::new();
        let mut ids = Vec::new();
        let mut outcome = Ok(());
        words.for_each_noted(|number, word| {
            ids.clear();
            match encoder.encode_pretoken(word, &mut cache, &mut ids) {
                Ok(()) => table.set(number, &ids),
                Err(error) => outcome = Err(error),
            }
        });
        for (number, id) in (NO_WORD..).zip(others) {
            table.set(number, id.map(T::from_id).as_slice());
        }
        outcome.map(|()| table)
    }

    fn set(&mut self, number: u32, ids: &[T]) {
        let entry = &mut self.entries[index(&self.bases, number)];
        if ids.len() <= ROOM {
            entry[..ids.len()].copy_from_slice(ids);
            entry[ROOM] = T::from_id(ids.len() as TokenId);
            return;
        }
        // Below 2^32: there are no more ids than bytes of text, and of that no more than notes may stand for.
        let place = [self.spilled.len(), self.spilled.len() + ids.len()];
        for (half, piece) in entry.iter_mut().zip(place.iter().flat_map(|place| [place & 0xFFFF, place >> 16])) {
            *half = T::from_id(piece as TokenId);
        }
        entry[ROOM] = T::from_id(SPILLED);
        self.spilled.extend_from_slice(ids);
    }

    /// Fills the empty chunk of a side of a block.
    fn fill(&self, chunk: &mut Chunk<T>, side: &SideNote) {
        chunk.text_bytes = side.text_bytes;
        let mut start = 0;
        for &end in &side.document_ends {
            self.append(&side.numbers[start..end as usize], &mut chunk.ids);
            chunk.document_ends.push(chunk.ids.len() as u64);
            start = end as usize;
        }
        self.append(&side.numbers[start..], &mut chunk.ids);
    }

    /// As in [`crate::encode`]'s loop: all ids of an entry are stored, and as many kept as count.
    fn append(&self, numbers: &[u32], ids: &mut Vec<T>) {
        const BATCH: usize = 256;
        let mut batch = [T::default(); (ROOM + 1) * BATCH];
        for numbers in numbers.chunks(BATCH) {
            let mut n_ids = 0;
            for &number in numbers {
                let entry = &self.entries[index(&self.bases, number)];
                let Some(room) = batch[n_ids..].first_chunk_mut() else { break }; // there is room for each
                *room = *entry;
                let count = entry[ROOM].to_id();
                if count == SPILLED {
                    ids.extend_from_slice(&batch[..n_ids]);
                    n_ids = 0;
                    ids.extend_from_slice(self.spilled_ids(entry));
                } else {
                    n_ids += count as usize;
                }
            }
            ids.extend_from_slice(&batch[..n_ids]);
        }
    }

    fn spilled_ids(&self, entry: &[T; ROOM + 1]) -> &[T] {
        let place = |half: usize| (entry[half].to_id() | entry[half + 1].to_id() << 16) as usize;
        &self.spilled[place(0)..place(2)]
    }
}

/// Where the entry of a number is.
#[inline(always)]
fn index(bases: &[u32; N_TIERS + 1], number: u32) -> usize {
    (bases[(number >> TIER_SHIFT) as usize] + (number & ((1 << TIER_SHIFT) - 1))) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretokenize::Pattern;
    use crate::special::Special;
    use crate::train::{Alphabet, Ties, TrainOptions, train};
    use crate::vocabulary::{SpecialIds, Vocabulary};
    use crate::words::Words;
    use std::sync::Arc;

    /// Words of a few ids and of very many, in all tiers of lengths.
    #[test]
    fn ids_from_notes_are_those_of_the_text() {
        let text: String =
            (0..3000).map(|n| format!("{} {}", n % 70, "ab ".repeat(n % 5) + &"xyz\u{e9}".repeat(n % 41))).collect();
        let pattern = Pattern::Gpt2;
        let mut counter = WordCounter::new();
        let mut numbers = vec![NO_WORD + 1];
        counter.note(&pattern, text.as_bytes(), 1, &mut numbers).unwrap();
        numbers.extend([NO_WORD, NO_WORD + 2]);

        let words = Words::merge(std::slice::from_ref(&counter), 1).unwrap();
        let options =
            TrainOptions { vocab_size: 262, ties: Ties::Bytes, min_frequency: 1, max_token_bytes: None, threads: 1 };
        let trained = train(&words, &Alphabet::Bytes, &options, &Monitor::new()).unwrap();
        let vocabulary =
            Vocabulary::from_merges(&Alphabet::Bytes, &trained.merges, pattern, &[], SpecialIds::End).unwrap();
        let encoder = Encoder::new(Arc::new(vocabulary));
        check::<u16>(&counter, &encoder, &numbers, &text);
        check::<u32>(&counter, &encoder, &numbers, &text);
    }

    fn check<T: Id + PartialEq + std::fmt::Debug>(
        counter: &WordCounter,
        encoder: &Encoder,
        numbers: &[u32],
        text: &str,
    ) {
        let table = IdTable::<T>::new(counter, encoder, &[Some(1), Some(2), None]).unwrap();
        let mut expected = vec![T::from_id(2)];
        encoder.encode(text.as_bytes(), Special::Text, &mut Cache::new(), &mut expected).unwrap();
        expected.push(T::from_id(1));
        let mut ids = Vec::new();
        table.append(numbers, &mut ids);
        assert_eq!(ids, expected);
        assert!(table.spilled.len() > 100);
        let tiers: Vec<u32> = numbers.iter().map(|number| number >> TIER_SHIFT).collect();
        assert!((0..=3).all(|tier| tiers.contains(&tier)));
    }
}
