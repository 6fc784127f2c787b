//! What an encoding thread remembers: the tokens of pre-tokens it has met. Bounded; ids do not depend on it.

use rustc_hash::FxHashMap;

use crate::merge::{Long, Merger};
use crate::token::TokenId;

/// Ids that an entry of the first cache holds.
pub(super) const INLINE_IDS: usize = 4;

/// Bytes of the longest pre-token that the first cache holds.
const KEY_BYTES: usize = 15;

/// Buckets of the first cache: 2 MiB, allocated when the first text is encoded, touched where words fall.
const N_BUCKETS: usize = 1 << 15;

/// The second cache is emptied when its words and ids take more.
const LONG_WORDS_BYTES: usize = 2 << 20;

/// A pre-token longer than this is not remembered.
const LONGEST_WORD: usize = 256;

/// The private memory of one encoding thread: caches and workspaces.
#[derive(Default)]
pub struct Cache {
    serial: u64,
    pub(super) words: Words,
    pub(super) long_words: LongWords,
    pub(super) merger: Merger,
    pub(super) long: Long,
    /// The tokens of the pre-token at hand.
    pub(super) tokens: Vec<TokenId>,
    pub(super) ends: Vec<usize>,
}

impl Cache {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes this the cache of the encoder `serial`, forgetting what another one left.
    pub(super) fn serve(&mut self, serial: u64) {
        if self.serial != serial {
            self.serial = serial;
            self.words = Words { buckets: vec![[0; 8]; N_BUCKETS] };
            self.long_words = LongWords::default();
        }
    }
}

/// A pre-token of up to 15 bytes and its length in two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u64; 2]);

impl Key {
    /// The key of `text[start..end]`, which is not empty; None when it is too long.
    #[inline]
    pub fn of(text: &[u8], start: usize, end: usize) -> Option<Self> {
        let length = end - start;
        if length > KEY_BYTES {
            return None;
        }
        let bytes = match text.get(start..start + 16) {
            Some(bytes) => u128::from_le_bytes(bytes.try_into().unwrap_or_default()) & ((1 << (8 * length)) - 1),
            None => {
                let mut bytes = [0; 16];
                bytes[..length].copy_from_slice(&text[start..end]);
                u128::from_le_bytes(bytes)
            }
        };
        let key = bytes | (length as u128) << 120;
        Some(Self([key as u64, (key >> 64) as u64]))
    }

    /// A product of both halves, folded: all bits of the key reach all bits of the hash.
    #[inline]
    fn bucket(self) -> usize {
        let product = (self.0[0] ^ 0x9E37_79B9_7F4A_7C15) as u128 * (self.0[1] ^ 0xD6E8_FEB8_6659_FD93) as u128;
        (product as u64 ^ (product >> 64) as u64) as usize & (N_BUCKETS - 1)
    }
}

/// The first cache: buckets of one cache line, two entries each, of key and ids.
#[derive(Default)]
pub(super) struct Words {
    buckets: Vec<[u64; 8]>,
}

impl Words {
    /// The ids and their number; the ids after it are meaningless.
    #[inline]
    pub fn get(&self, key: Key) -> Option<([TokenId; INLINE_IDS], usize)> {
        let bucket = self.buckets.get(key.bucket())?;
        for entry in bucket.chunks_exact(4) {
            if entry[..2] == key.0 {
                let (low, high) = (entry[2], entry[3]);
                let ids = [low as u32 & ID_MASK, (low >> 32) as u32, high as u32, (high >> 32) as u32];
                return Some((ids, (low as u32 >> COUNT_SHIFT) as usize));
            }
        }
        None
    }

    /// Puts an entry first in its bucket; the older of the two there is dropped.
    pub fn insert(&mut self, key: Key, ids: &[TokenId]) {
        let mut four = [0; INLINE_IDS];
        four[..ids.len()].copy_from_slice(ids);
        four[0] |= (ids.len() as u32) << COUNT_SHIFT;
        let four = four.map(u64::from);
        if let Some(bucket) = self.buckets.get_mut(key.bucket()) {
            bucket.copy_within(0..4, 4);
            bucket[..4].copy_from_slice(&[key.0[0], key.0[1], four[0] | four[1] << 32, four[2] | four[3] << 32]);
        }
    }
}

/// Ids have 21 bits, so the number of ids stands in the upper ones of the first.
const COUNT_SHIFT: u32 = 24;
const ID_MASK: u32 = (1 << COUNT_SHIFT) - 1;

/// The second cache: longer pre-tokens, and those of more tokens.
#[derive(Default)]
pub(super) struct LongWords {
    places: FxHashMap<Box<[u8]>, (u32, u32)>,
    ids: Vec<TokenId>,
    size_bytes: usize,
}

impl LongWords {
    /// Replaces `tokens` by the ids of a pre-token that is known here.
    pub fn get(&self, pretoken: &[u8], tokens: &mut Vec<TokenId>) -> bool {
        if pretoken.len() > LONGEST_WORD {
            return false;
        }
        let Some(&(start, end)) = self.places.get(pretoken) else { return false };
        tokens.clear();
        tokens.extend_from_slice(&self.ids[start as usize..end as usize]);
        true
    }

    pub fn insert(&mut self, pretoken: &[u8], tokens: &[TokenId]) {
        // What an entry of the map costs beside its own bytes.
        const ENTRY_BYTES: usize = 48;
        if pretoken.len() > LONGEST_WORD {
            return;
        }
        if self.size_bytes > LONG_WORDS_BYTES {
            self.places.clear();
            self.ids.clear();
            self.size_bytes = 0;
        }
        let start = self.ids.len() as u32;
        self.ids.extend_from_slice(tokens);
        self.places.insert(pretoken.into(), (start, self.ids.len() as u32));
        self.size_bytes += pretoken.len() + 4 * tokens.len() + ENTRY_BYTES;
    }
}
