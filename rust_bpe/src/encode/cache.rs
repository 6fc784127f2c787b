//! What an encoding thread has of its own: the tokens of pre-tokens it has met, and workspaces.

use std::sync::Arc;

use super::Id;
use super::entry::{ShortKey, Width};
use super::known::KnownWords;
use super::lookup::{self, Common, Keys, Own, Run};
use super::missed::Missed;
use super::shared::SharedWords;
use super::tables::Tables;
use crate::checksum::Streams;
use crate::merge::{Batch, Long, Merger};
use crate::processor::Avx2;
use crate::token::TokenId;

/// Of text, for each word that is met in it for the first time. English has one in 570, of 74 MB; fewer words than that make
/// the table grow, more make it larger than it has to be.
const BYTES_A_WORD: u64 = 1 << 10;

/// The private memory of one encoding thread. Bounded; ids do not depend on it.
pub struct Cache {
    serial: u64,
    /// How many words there are likely to be; the table of short ones is as large as they make it from the start.
    n_words: usize,
    pub(super) shared: Option<Arc<SharedWords>>,
    pub(super) processor: Option<Avx2>,
    pub(super) tables: Tables,
    pub(super) merger: Merger,
    pub(super) long: Long,
    /// The tokens of the pre-token at hand.
    pub(super) tokens: Vec<TokenId>,
    pub(super) ends: Vec<usize>,
    pub(super) missed: Vec<Missed>,
    pub(super) batch: Batch,
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

impl Cache {
    pub fn new() -> Self {
        Self {
            serial: 0,
            n_words: 0,
            shared: None,
            processor: Avx2::detect(),
            tables: Tables::default(),
            merger: Merger::default(),
            long: Long::default(),
            tokens: Vec::new(),
            ends: Vec::new(),
            missed: Vec::new(),
            batch: Batch::default(),
        }
    }

    /// One for a text of so many bytes.
    pub fn for_text(n_bytes: u64) -> Self {
        Self { n_words: (n_bytes / BYTES_A_WORD) as usize, ..Self::new() }
    }

    /// One that knows what others with the same words know, while it serves their encoder.
    pub fn sharing(words: &Arc<SharedWords>, n_bytes: u64) -> Self {
        let own = Self::for_text(n_bytes);
        Self { shared: Some(words.clone()), n_words: own.n_words.min(words.n_own()), ..own }
    }

    /// One for a text of which little may be held: it remembers 256 KiB of words, more slowly.
    pub fn small() -> Self {
        Self { tables: Tables::small(), ..Self::default() }
    }

    /// Makes this the cache of the encoder `serial`, which begins with the words that are `known` to it; what another one
    /// left is forgotten. Small ones begin empty.
    pub(super) fn serve(&mut self, serial: u64, known: &KnownWords, width: Width) {
        if self.serial != serial {
            self.serial = serial;
            self.tables = match &self.shared {
                Some(shared) if shared.serial == serial && shared.is_large() => Tables::sharing(shared, known),
                _ if self.tables.is_small() => Tables::small(),
                _ => Tables::of(known, self.n_words, width),
            };
        }
    }

    /// [`lookup::make_keys`] for the table at hand.
    pub(super) fn make_keys(&self, text: &[u8], start: usize, ends: &[usize], keys: &mut Keys, streams: &mut Streams) {
        let Tables { short, spilled, shared, .. } = &self.tables;
        match shared {
            None => lookup::make_keys(self.processor, Own(short, spilled), text, start, ends, keys, streams),
            Some(view) => {
                lookup::make_keys(self.processor, Common::of(&view.generation), text, start, ends, keys, streams)
            }
        }
    }

    /// [`lookup::run`] with the table at hand.
    pub(super) fn run<T: Id>(&self, keys: &[(ShortKey, u64)], ids: &mut [T]) -> Run {
        let Tables { short, spilled, shared, .. } = &self.tables;
        match shared {
            None => lookup::run(self.processor, Own(short, spilled), keys, ids),
            Some(view) => lookup::run(self.processor, Common::of(&view.generation), keys, ids),
        }
    }
}
