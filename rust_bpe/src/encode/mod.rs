//! Text to token ids and back.
//!
//! An [`Encoder`] never changes and is shared; what an encoding thread learns stands in a [`Cache`] of its own, and of several
//! threads in [`SharedWords`]. The ids are a function of vocabulary and text alone: [`crate::reference::encode`] is the same, slowly.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod base;
mod cache;
mod decode;
mod entry;
mod known;
mod learned;
mod lookup;
mod missed;
mod shared;
#[cfg(test)]
mod shared_tests;
mod stream;
mod tables;
#[cfg(test)]
mod tests;
mod words;
mod words_file;
mod write_once;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::checksum::Streams;
use crate::error::{Error, Result};
use crate::merge::{Long, MAX_SCAN, MergeTable, Merger};
use crate::special::Special;
pub use crate::token::Id;
use crate::token::TokenId;
use crate::vocabulary::Vocabulary;
use base::BaseTable;
pub use cache::Cache;
use entry::Width;
pub use known::KnownWords;
pub use shared::SharedWords;
pub use stream::Stream;
use tables::LONGEST_WORD;

/// Encodes and decodes with one vocabulary.
#[derive(Debug)]
pub struct Encoder {
    vocabulary: Arc<Vocabulary>,
    ranks: MergeTable,
    base: BaseTable,
    /// What each cache begins with, and how it keeps ids.
    known: Arc<KnownWords>,
    width: Width,
    /// Tells the encoders of a process apart, so that a cache filled by one is never read by another.
    serial: u64,
}

impl Encoder {
    pub fn new(vocabulary: Arc<Vocabulary>) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Self {
            ranks: MergeTable::new(vocabulary.merges()),
            base: BaseTable::new(vocabulary.base(), vocabulary.unknown_id()),
            known: Arc::default(),
            width: if vocabulary.largest_id() <= u16::LARGEST { Width::Narrow } else { Width::Wide },
            serial: SERIAL.fetch_add(1, Relaxed),
            vocabulary,
        }
    }

    /// The same, faster: `known` must hold what the encoder would find.
    pub fn with_known(self, known: Arc<KnownWords>) -> Self {
        Self { known, ..self }
    }

    /// What so many threads share that encode a text with this.
    pub fn share(&self, n_threads: usize) -> Arc<SharedWords> {
        Arc::new(SharedWords::new(self.serial, self.known.clone(), self.width, n_threads))
    }

    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// Appends the ids of a document to `out`. On an error `out` holds a part of them.
    ///
    /// Errors: [`Error::Text`] for a special token where `special` forbids it, and over characters for what is not
    /// UTF-8 and for a character without a token; [`Error::PreTokenTooLong`]; [`Error::Setting`] when the largest id
    /// of the vocabulary does not fit `T`. Positions are bytes from the start of `text`.
    pub fn encode<T: Id>(&self, text: &[u8], special: Special, cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        self.encode_and_hash(text, special, cache, &mut Streams::default(), out)
    }

    /// The same, and hashes some of `streams` beside it.
    pub fn encode_and_hash<T: Id>(
        &self,
        text: &[u8],
        special: Special,
        cache: &mut Cache,
        streams: &mut Streams,
        out: &mut Vec<T>,
    ) -> Result<()> {
        self.check_fits::<T>()?;
        let specials = self.vocabulary.special_tokens();
        let find = |start| if special == Special::Text { None } else { specials.find(text, start) };
        let mut start = 0;
        while let Some((place, id)) = find(start) {
            if special == Special::Error {
                return Err(self.forbidden(id, place.start as u64));
            }
            self.ordinary(&text[start..place.start], start as u64, cache, streams, out)?;
            out.push(T::from_id(id));
            start = place.end;
        }
        self.ordinary(&text[start..], start as u64, cache, streams, out)
    }

    /// Appends the ids of a text that is one pre-token.
    pub fn encode_pretoken<T: Id>(&self, pretoken: &[u8], cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        self.check_fits::<T>()?;
        cache.serve(self.serial, &self.known, self.width);
        self.one(pretoken, cache, out)
    }

    /// The last place at which `text` may be cut so that both sides give alone the ids they give together, whatever
    /// stands before and after; special tokens are the caller's affair.
    pub fn safe_cut(&self, text: &[u8]) -> Option<usize> {
        if !self.is_plain() {
            return self.vocabulary.pattern().safe_cut(text);
        }
        let cut = match self.base {
            BaseTable::Bytes(_) => text.len(),
            BaseTable::Chars(_) => base::last_character_start(text),
        };
        (cut > 0).then_some(cut)
    }

    /// Whether every base symbol is a token by itself, wherever it stands.
    fn is_plain(&self) -> bool {
        self.vocabulary.merges().is_empty() && !self.vocabulary.ignore_merges()
    }

    /// Encodes text without special tokens that begins at byte `offset` of its document.
    fn ordinary<T: Id>(
        &self,
        text: &[u8],
        offset: u64,
        cache: &mut Cache,
        streams: &mut Streams,
        out: &mut Vec<T>,
    ) -> Result<()> {
        cache.serve(self.serial, &self.known, self.width);
        let mut ends = std::mem::take(&mut cache.ends);
        let outcome = self.base.check(text).and_then(|()| {
            if self.is_plain() { self.plain(text, out) } else { self.pretokens(text, cache, &mut ends, streams, out) }
        });
        cache.ends = ends;
        outcome.map_err(|error| error.moved(offset))
    }

    fn plain<T: Id>(&self, text: &[u8], out: &mut Vec<T>) -> Result<()> {
        self.base.each_symbol(text, |id| out.push(T::from_id(id)))
    }

    /// The main loop: a batch of boundaries, then runs of pre-tokens that the cache's first table knows.
    fn pretokens<T: Id>(
        &self,
        text: &[u8],
        cache: &mut Cache,
        ends: &mut Vec<usize>,
        streams: &mut Streams,
        out: &mut Vec<T>,
    ) -> Result<()> {
        let mut splitter = self.vocabulary.pattern().splitter(text);
        let mut keys: lookup::Keys = [Default::default(); lookup::STRETCH];
        let mut ids = [T::default(); lookup::STRETCH * lookup::ROOM];
        let mut start = 0;
        cache.missed.clear();
        while start < text.len() {
            if let Err(error) = splitter.next(start, ends) {
                self.settle(text, cache, out)?; // what is wrong before that comes first
                return Err(error);
            }
            for ends in ends.chunks(lookup::STRETCH) {
                cache.make_keys(text, start, ends, &mut keys, streams);
                let mut done = 0;
                while done < ends.len() {
                    let run = cache.run(&keys[done..ends.len()], &mut ids);
                    out.extend_from_slice(&ids[..run.n_ids]);
                    done += run.n_pretokens;
                    if done > 0 {
                        start = ends[done - 1];
                    }
                    let Some(&end) = ends.get(done) else { break };
                    self.miss(text, (start, end), cache, out)?;
                    (start, done) = (end, done + 1);
                }
                self.settle_if_far(text, cache, out)?;
            }
        }
        self.settle(text, cache, out)
    }

    /// Appends the tokens of a pre-token.
    #[inline(always)]
    fn one<T: Id>(&self, pretoken: &[u8], cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        if pretoken.len() > LONGEST_WORD {
            return self.long(pretoken, cache, out);
        }
        let tokens = self.recall(pretoken, cache)?;
        out.extend(tokens.iter().map(|&id| T::from_id(id)));
        Ok(())
    }

    /// The tokens of a pre-token: those remembered, or merged now and remembered.
    #[inline(never)]
    fn recall<'c>(&self, pretoken: &[u8], cache: &'c mut Cache) -> Result<&'c [TokenId]> {
        if !cache.tables.recall(pretoken, &mut cache.tokens) {
            self.merged(pretoken, cache)?;
            cache.tables.remember(pretoken, &cache.tokens);
        }
        Ok(&cache.tokens)
    }

    /// Puts the tokens of a pre-token into `cache.tokens`.
    fn merged(&self, pretoken: &[u8], cache: &mut Cache) -> Result<()> {
        cache.tokens.clear();
        if let Some(id) = self.whole(pretoken) {
            cache.tokens.push(id);
            return Ok(());
        }
        if pretoken.len() <= MAX_SCAN {
            self.base.each_symbol(pretoken, |id| cache.tokens.push(id))?;
            cache.merger.merge(&mut cache.tokens, &self.ranks);
            return Ok(());
        }
        self.pieces(pretoken, &mut cache.long, &mut cache.merger, &mut cache.tokens)
    }

    /// Appends the tokens of a pre-token that is too long to be remembered.
    ///
    /// Straight to where they belong: an array of their own cost 16 MB of spaces, each a token of gpt2, up to as much
    /// again in new pages, where 1 MB found its pages in the heap.
    #[inline(never)]
    fn long<T: Id>(&self, pretoken: &[u8], cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        match self.whole(pretoken) {
            Some(id) => out.push(T::from_id(id)),
            None => self.pieces(pretoken, &mut cache.long, &mut cache.merger, out)?,
        }
        Ok(())
    }

    /// The token of a pre-token where the vocabulary says that one of its bytes stands for it, whatever its merges make.
    fn whole(&self, pretoken: &[u8]) -> Option<TokenId> {
        if self.vocabulary.ignore_merges() { self.vocabulary.id_of(pretoken) } else { None }
    }

    fn pieces<T: Id>(&self, pretoken: &[u8], long: &mut Long, merger: &mut Merger, out: &mut Vec<T>) -> Result<()> {
        let symbols = self.base.symbols(pretoken, &self.vocabulary)?;
        long.merge(&symbols, &self.ranks, merger, out);
        Ok(())
    }

    fn check_fits<T: Id>(&self) -> Result<()> {
        let largest = self.vocabulary.largest_id();
        if largest > T::LARGEST {
            return Err(Error::Setting(format!("ids go up to {largest}, above {} which uint16 holds", T::LARGEST)));
        }
        Ok(())
    }

    fn forbidden(&self, id: TokenId, position: u64) -> Error {
        let string = self.vocabulary.special_tokens().string_of(id).unwrap_or_default();
        let message =
            format!("the text holds the special token {string:?}: allow special tokens, or take them as text");
        Error::Text { position, message }
    }
}
