//! Text to token ids and back.
//!
//! An [`Encoder`] never changes and is shared; what an encoding thread learns stands in a [`Cache`] of its own. The ids
//! are a function of vocabulary and text alone: [`crate::reference::encode`] is the same, slowly.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod base;
mod cache;
mod decode;
mod known;
mod lookup;
mod stream;
mod tables;
#[cfg(test)]
mod tests;
mod words;
mod words_file;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::memory;
use crate::merge::{MAX_SCAN, MergeTable};
use crate::pretokenize::PRETOKEN_BATCH;
use crate::special::Special;
use crate::token::TokenId;
use crate::vocabulary::Vocabulary;
use base::BaseTable;
pub use cache::Cache;
pub use known::KnownWords;
pub use stream::Stream;
use tables::Tables;
use words::Width;

/// The integer type of an array of ids.
pub trait Id: Copy + Default + Send + Sync + 'static {
    const LARGEST: TokenId;

    /// The id, which is at most [`Id::LARGEST`].
    fn from_id(id: TokenId) -> Self;

    fn to_id(self) -> TokenId;

    /// The bytes of `ids` in little-endian order.
    fn little_endian(ids: &[Self]) -> Vec<u8>;
}

impl Id for u16 {
    const LARGEST: TokenId = u16::MAX as TokenId;

    #[inline]
    fn from_id(id: TokenId) -> Self {
        id as u16
    }

    fn to_id(self) -> TokenId {
        self.into()
    }

    fn little_endian(ids: &[Self]) -> Vec<u8> {
        ids.iter().map(|id| id.to_le_bytes()).collect::<Vec<_>>().into_flattened()
    }
}

impl Id for u32 {
    const LARGEST: TokenId = u32::MAX;

    #[inline]
    fn from_id(id: TokenId) -> Self {
        id
    }

    fn to_id(self) -> TokenId {
        self
    }

    fn little_endian(ids: &[Self]) -> Vec<u8> {
        ids.iter().map(|id| id.to_le_bytes()).collect::<Vec<_>>().into_flattened()
    }
}

/// Encodes and decodes with one vocabulary.
#[derive(Debug)]
pub struct Encoder {
    vocabulary: Arc<Vocabulary>,
    ranks: MergeTable,
    base: BaseTable,
    /// What each cache begins with.
    known: Tables,
    /// Tells the encoders of a process apart, so that a cache filled by one is never read by another.
    serial: u64,
}

impl Encoder {
    pub fn new(vocabulary: Arc<Vocabulary>) -> Self {
        Self::with_known(vocabulary, &KnownWords::default())
    }

    /// The same, faster: `known` must hold what the encoder would find.
    pub fn with_known(vocabulary: Arc<Vocabulary>, known: &KnownWords) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Self {
            ranks: MergeTable::new(vocabulary.merges()),
            base: BaseTable::new(vocabulary.base(), vocabulary.unknown_id()),
            known: Tables::of(known, if vocabulary.largest_id() <= u16::LARGEST { Width::Narrow } else { Width::Wide }),
            serial: SERIAL.fetch_add(1, Relaxed),
            vocabulary,
        }
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
        self.check_fits::<T>()?;
        let specials = self.vocabulary.special_tokens();
        let find = |start| if special == Special::Text { None } else { specials.find(text, start) };
        let mut start = 0;
        while let Some((place, id)) = find(start) {
            if special == Special::Error {
                return Err(self.forbidden(id, place.start as u64));
            }
            self.ordinary(&text[start..place.start], start as u64, cache, out)?;
            out.push(T::from_id(id));
            start = place.end;
        }
        self.ordinary(&text[start..], start as u64, cache, out)
    }

    /// Appends the ids of one pre-token.
    pub fn encode_pretoken<T: Id>(&self, pretoken: &[u8], cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        self.check_fits::<T>()?;
        cache.serve(self.serial, &self.known);
        let tokens = self.recall(pretoken, cache)?;
        out.extend(tokens.iter().map(|&id| T::from_id(id)));
        Ok(())
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
    fn ordinary<T: Id>(&self, text: &[u8], offset: u64, cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        cache.serve(self.serial, &self.known);
        let mut ends = std::mem::take(&mut cache.ends);
        let outcome = self.base.check(text).and_then(|()| {
            if self.is_plain() { self.plain(text, out) } else { self.pretokens(text, cache, &mut ends, out) }
        });
        cache.ends = ends;
        outcome.map_err(|error| error.moved(offset))
    }

    fn plain<T: Id>(&self, text: &[u8], out: &mut Vec<T>) -> Result<()> {
        self.base.each_symbol(text, |id| out.push(T::from_id(id)))
    }

    /// The main loop: a batch of boundaries, then runs of pre-tokens that the cache's first table knows.
    fn pretokens<T: Id>(&self, text: &[u8], cache: &mut Cache, ends: &mut Vec<usize>, out: &mut Vec<T>) -> Result<()> {
        let mut splitter = self.vocabulary.pattern().splitter(text);
        let mut ids = [T::default(); PRETOKEN_BATCH * lookup::ROOM];
        let mut start = 0;
        while start < text.len() {
            splitter.next(start, ends)?;
            let mut ends = ends.as_slice();
            while !ends.is_empty() {
                let run = lookup::run(cache.processor, &cache.tables.short, text, start, ends, &mut ids);
                out.extend_from_slice(&ids[..run.n_ids]);
                start = run.end;
                let Some((&end, others)) = ends[run.n_pretokens..].split_first() else { break };
                let known = self.recall(&text[start..end], cache).map_err(|error| error.moved(start as u64))?;
                out.extend(known.iter().map(|&id| T::from_id(id)));
                (start, ends) = (end, others);
            }
        }
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
        let whole = if self.vocabulary.ignore_merges() { self.vocabulary.id_of(pretoken) } else { None };
        if let Some(id) = whole {
            cache.tokens.push(id);
            return Ok(());
        }
        if pretoken.len() <= MAX_SCAN {
            self.base.each_symbol(pretoken, |id| cache.tokens.push(id))?;
            cache.merger.merge(&mut cache.tokens, &self.ranks);
            return Ok(());
        }
        if cache.tokens.capacity() < pretoken.len() {
            // At most so many: in huge pages where it is long, so that 16 MB take little more a byte than 1 MB.
            cache.tokens = memory::with_capacity(pretoken.len());
        }
        let symbols = self.base.symbols(pretoken, &self.vocabulary)?;
        cache.long.merge(&symbols, &self.ranks, &mut cache.merger, &mut cache.tokens);
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
