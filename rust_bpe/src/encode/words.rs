//! The tables of pre-tokens met before, for the lengths that nearly all have: a look is one cache line.
//!
//! The key is the pre-token itself, so an entry never stands for another; a table is bounded, and a newer entry drops an
//! older one. Both tables have buckets of 64 bytes: two entries of up to 15 bytes and 4 ids, or one of up to 31 and 8.

use crate::memory;
use crate::token::TokenId;

/// Longest pre-tokens of the two tables, in bytes.
pub(super) const SHORT_BYTES: usize = 15;
pub(super) const MEDIUM_BYTES: usize = 31;

/// A pre-token and its length in so many words.
pub(super) type ShortKey = [u64; 2];
pub(super) type MediumKey = [u64; 4];

/// 8 MiB, which stays in the third cache: 262,144 words. With a quarter of it, warm encoding of 74 MB of English merged
/// evicted words for a quarter of its time.
pub(super) type ShortWords = Words<2, 4, { 1 << 17 }>;

/// The key of no pre-token: in its place for one that is too long for the table.
pub(super) const NO_KEY: ShortKey = [u64::MAX; 2];
/// 1 MiB; one pre-token in 20 of multilingual text is that long.
pub(super) type MediumWords = Words<4, 8, { 1 << 14 }>;

/// The key of `text[start..end]`, 1 to 15 bytes.
#[inline]
pub(super) fn short_key(text: &[u8], start: usize, end: usize) -> ShortKey {
    let length = end - start;
    let bytes = match text.get(start..start + 16) {
        Some(bytes) => u128::from_le_bytes(bytes.try_into().unwrap_or_default()) & LOW_BYTES[length],
        None => {
            let mut bytes = [0; 16];
            bytes[..length].copy_from_slice(&text[start..end]);
            u128::from_le_bytes(bytes)
        }
    };
    [bytes as u64, (bytes >> 64) as u64 | (length as u64) << 56]
}

/// Ones in the lowest bytes, by their number.
const LOW_BYTES: [u128; SHORT_BYTES + 1] = {
    let mut masks = [0; SHORT_BYTES + 1];
    let mut length = 1;
    while length <= SHORT_BYTES {
        masks[length] = (1 << (8 * length)) - 1;
        length += 1;
    }
    masks
};

/// The key of a pre-token of 16 to 31 bytes.
#[inline]
pub(super) fn medium_key(pretoken: &[u8]) -> MediumKey {
    let mut bytes = [0; 32];
    bytes[..pretoken.len()].copy_from_slice(pretoken);
    bytes[31] = pretoken.len() as u8;
    let (words, _) = bytes.as_chunks::<8>();
    [0, 1, 2, 3].map(|word| u64::from_le_bytes(words[word]))
}

/// What a table says of a pre-token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<const IDS: usize> {
    /// Its ids and their number; the ids after it are meaningless.
    Ids([TokenId; IDS], usize),
    /// The place of its ids among those that are too many for an entry.
    Spilled(u32, u32),
}

/// `KEY` words of key and `IDS` ids an entry; as many entries as fill a bucket.
pub(super) struct Words<const KEY: usize, const IDS: usize, const BUCKETS: usize> {
    /// Empty until it is needed.
    buckets: Vec<[u64; 8]>,
}

impl<const KEY: usize, const IDS: usize, const BUCKETS: usize> Default for Words<KEY, IDS, BUCKETS> {
    fn default() -> Self {
        Self { buckets: Vec::new() }
    }
}

impl<const KEY: usize, const IDS: usize, const BUCKETS: usize> Words<KEY, IDS, BUCKETS> {
    const ENTRY: usize = KEY + IDS / 2;

    #[inline]
    pub fn get(&self, key: &[u64; KEY]) -> Option<Found<IDS>> {
        let bucket = self.buckets.get(Self::bucket_of(key))?; // none before the first is put there
        let entry = bucket.chunks_exact(Self::ENTRY).find(|entry| entry[..KEY] == *key)?;
        let (first, second) = (entry[KEY] as u32, (entry[KEY] >> 32) as u32);
        let count = (first >> COUNT_SHIFT) as usize;
        if count == SPILLED {
            return Some(Found::Spilled(second, entry[KEY + 1] as u32));
        }
        let mut ids = [0; IDS];
        for (pair, word) in ids.chunks_exact_mut(2).zip(&entry[KEY..]) {
            pair.copy_from_slice(&[*word as u32, (word >> 32) as u32]);
        }
        ids[0] = first & ID_MASK;
        Some(Found::Ids(ids, count))
    }

    /// Puts a pre-token of at most `IDS` ids first in its bucket; the oldest there is dropped.
    pub fn insert(&mut self, key: &[u64; KEY], ids: &[TokenId]) {
        let mut all = [0; IDS];
        all[..ids.len()].copy_from_slice(ids);
        all[0] |= (ids.len() as u32) << COUNT_SHIFT;
        self.put(key, all);
    }

    /// The same for one whose ids stand elsewhere.
    pub fn insert_spilled(&mut self, key: &[u64; KEY], start: u32, end: u32) {
        let mut all = [0; IDS];
        all[..3].copy_from_slice(&[(SPILLED as u32) << COUNT_SHIFT, start, end]);
        self.put(key, all);
    }

    pub fn clear(&mut self) {
        self.buckets.fill([0; 8]);
    }

    fn put(&mut self, key: &[u64; KEY], ids: [TokenId; IDS]) {
        if self.buckets.is_empty() {
            self.buckets = memory::filled([0; 8], BUCKETS);
        }
        let bucket = &mut self.buckets[Self::bucket_of(key)];
        bucket.copy_within(..8 - Self::ENTRY, Self::ENTRY);
        bucket[..KEY].copy_from_slice(key);
        for (word, pair) in bucket[KEY..].iter_mut().zip(ids.chunks_exact(2)) {
            *word = pair[0] as u64 | (pair[1] as u64) << 32;
        }
    }

    /// A product of the halves of the key, folded: all its bits reach all bits of the hash.
    #[inline(always)]
    fn bucket_of(key: &[u64; KEY]) -> usize {
        let mut hash = 0;
        for pair in key.chunks_exact(2) {
            let product = (pair[0] ^ 0x9E37_79B9_7F4A_7C15 ^ hash) as u128 * (pair[1] ^ 0xD6E8_FEB8_6659_FD93) as u128;
            hash = product as u64 ^ (product >> 64) as u64;
        }
        hash as usize & (BUCKETS - 1)
    }
}

impl<const BUCKETS: usize> Words<2, 4, BUCKETS> {
    /// The same as `get` for ids in the entry, without a branch that is hard to foresee. The number of ids is 0 for
    /// everything else.
    #[inline(always)]
    pub fn look(&self, key: &ShortKey) -> ([TokenId; 4], usize) {
        let Some(bucket) = self.buckets.get(Self::bucket_of(key)) else { return ([0; 4], 0) };
        let [a0, a1, .., b0, b1, _, _] = bucket;
        let is_first = (a0 ^ key[0]) | (a1 ^ key[1]) == 0;
        let is_second = (b0 ^ key[0]) | (b1 ^ key[1]) == 0;
        let place = if is_second { 4 } else { 0 };
        let words = [bucket[place + 2], bucket[place + 3]];
        let count = words[0] as u32 >> COUNT_SHIFT;
        let known = (is_first | is_second) & (count != SPILLED as u32);
        let ids = [words[0] as u32 & ID_MASK, (words[0] >> 32) as u32, words[1] as u32, (words[1] >> 32) as u32];
        (ids, if known { count as usize } else { 0 })
    }
}

/// Ids have 21 bits, so the number of ids stands in the upper ones of the first.
const COUNT_SHIFT: u32 = 24;
const ID_MASK: u32 = (1 << COUNT_SHIFT) - 1;
const SPILLED: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_all_pretokens_apart() {
        let text = b"ab\0\0\0 and the rest of a text that is long enough";
        let keys: Vec<ShortKey> = (1..=SHORT_BYTES).map(|end| short_key(text, 0, end)).collect();
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(*key, short_key(&text[..index + 1], 0, index + 1), "at the end of a text and inside one");
            assert!(keys[..index].iter().all(|other| other != key));
        }
        let zeros = [0; MEDIUM_BYTES];
        assert_ne!(medium_key(&zeros[..20]), medium_key(&zeros[..21]));
    }

    #[test]
    fn what_is_found_is_what_was_put_there_last() {
        let mut short = ShortWords::default();
        let mut medium = MediumWords::default();
        assert_eq!(short.get(&short_key(b"a", 0, 1)), None);
        for number in 0..200_000u32 {
            let word = format!("{number:020}");
            let (short_word, medium_word) = (&word.as_bytes()[10..], word.as_bytes());
            let ids: Vec<TokenId> = (0..=number % 4).map(|place| (number + place) % 2_000_000).collect();
            let key = short_key(short_word, 0, 10);
            short.insert(&key, &ids);
            match short.get(&key) {
                Some(Found::Ids(found, count)) => assert_eq!(found[..count], ids),
                other => panic!("{other:?}"),
            }
            medium.insert_spilled(&medium_key(medium_word), number, number + 9);
            assert_eq!(medium.get(&medium_key(medium_word)), Some(Found::Spilled(number, number + 9)));
            assert_eq!(medium.get(&medium_key(&medium_word[..19])), None);
        }
        medium.clear();
        assert_eq!(medium.get(&medium_key(b"00000000000000199999")), None);
    }
}
