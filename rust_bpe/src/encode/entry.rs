//! Entries of the tables of words: the pre-token itself, so that one never stands for another, and its ids or their place.

use crate::token::TokenId;

/// Longest pre-tokens of the two tables, in bytes.
pub(super) const SHORT_BYTES: usize = 15;
pub(super) const MEDIUM_BYTES: usize = 31;

/// A pre-token and its length in so many words.
pub(super) type ShortKey = [u64; 2];
pub(super) type MediumKey = [u64; 4];

/// The key of no pre-token: in its place for one that is too long for the table.
pub(super) const NO_KEY: ShortKey = [u64::MAX; 2];

/// The integers of ids in a table: of 16 bits where all ids of the vocabulary fit, so that twice as many do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Width {
    #[default]
    Narrow,
    Wide,
}

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
pub(super) const LOW_BYTES: [u128; SHORT_BYTES + 1] = {
    let mut masks = [0; SHORT_BYTES + 1];
    let mut length = 1;
    while length <= SHORT_BYTES {
        masks[length] = (1 << (8 * length)) - 1;
        length += 1;
    }
    masks
};

/// The key of a pre-token of 16 to 31 bytes.
pub(super) fn medium_key(pretoken: &[u8]) -> MediumKey {
    let mut bytes = [0; 32];
    bytes[..pretoken.len()].copy_from_slice(pretoken);
    bytes[31] = pretoken.len() as u8 - 16;
    let (words, _) = bytes.as_chunks::<8>();
    [0, 1, 2, 3].map(|word| u64::from_le_bytes(words[word]))
}

/// What a table says of a pre-token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its ids, the first of so many; those behind them are meaningless.
    Ids([TokenId; MOST_IDS], usize),
    /// The place of its ids among those that are too many for an entry.
    Spilled(u32, u32),
}

/// Ids in an entry of the larger kind.
pub(super) const MOST_IDS: usize = 16;

/// The highest bits of a key are 0; in an entry they have the number of ids, which is none in an empty one.
pub(super) const COUNT_SHIFT: u32 = 60;
pub(super) const KEY_BITS: u64 = (1 << COUNT_SHIFT) - 1;
/// In place of the number of ids that stand elsewhere: the place has two words of 32 bits.
pub(super) const SPILLED: usize = 15;

/// The number of ids by the last word of an entry's key: 0 in an empty one, more than there can be where they are spilled.
#[inline(always)]
pub(super) fn count_of(last_of_key: u64) -> usize {
    (last_of_key >> COUNT_SHIFT) as usize
}

/// Ids that an entry of `SIZE` words, `KEY` of them for the key, has room for.
pub(super) fn room<const KEY: usize, const SIZE: usize>(width: Width) -> usize {
    let n_ids = (SIZE - KEY) * 8 / if width == Width::Narrow { 2 } else { 4 };
    n_ids.min(SPILLED - 1)
}

/// A pre-token of at most [`room`] ids.
pub(super) fn entry_of<const KEY: usize, const SIZE: usize>(
    key: &[u64; KEY],
    ids: &[TokenId],
    width: Width,
) -> [u64; SIZE] {
    let per_word = if width == Width::Narrow { 4 } else { 2 };
    let mut entry = with_count(key, ids.len());
    for (word, ids) in entry[KEY..].iter_mut().zip(ids.chunks(per_word)) {
        *word = ids.iter().rev().fold(0, |word, &id| word << (64 / per_word) | u64::from(id));
    }
    entry
}

/// One whose ids stand elsewhere.
pub(super) fn spilled_entry<const KEY: usize, const SIZE: usize>(
    key: &[u64; KEY],
    start: u32,
    end: u32,
) -> [u64; SIZE] {
    let mut entry = with_count(key, SPILLED);
    entry[KEY] = u64::from(start) | u64::from(end) << 32;
    entry
}

fn with_count<const KEY: usize, const SIZE: usize>(key: &[u64; KEY], count: usize) -> [u64; SIZE] {
    let mut entry = [0; SIZE];
    entry[..KEY].copy_from_slice(key);
    entry[KEY - 1] |= (count as u64) << COUNT_SHIFT;
    entry
}

/// The key of an entry.
#[inline(always)]
pub(super) fn key_of<const KEY: usize, const SIZE: usize>(entry: &[u64; SIZE]) -> [u64; KEY] {
    let mut key = *entry.first_chunk().unwrap_or(&[0; KEY]);
    key[KEY - 1] &= KEY_BITS;
    key
}

/// What an entry says; None if it is empty.
pub(super) fn found_in<const KEY: usize, const SIZE: usize>(entry: &[u64; SIZE], width: Width) -> Option<Found> {
    match count_of(entry[KEY - 1]) {
        0 => None,
        SPILLED => Some(Found::Spilled(entry[KEY] as u32, (entry[KEY] >> 32) as u32)),
        count => Some(Found::Ids(unpacked(&entry[KEY..], width), count)),
    }
}

fn unpacked(words: &[u64], width: Width) -> [TokenId; MOST_IDS] {
    let mut ids = [0; MOST_IDS];
    match width {
        Width::Narrow => {
            for (ids, word) in ids.chunks_exact_mut(4).zip(words) {
                ids.copy_from_slice(&[0, 16, 32, 48].map(|shift| (word >> shift) as u32 & 0xFFFF));
            }
        }
        Width::Wide => {
            for (ids, word) in ids.chunks_exact_mut(2).zip(words) {
                ids.copy_from_slice(&[*word as u32, (word >> 32) as u32]);
            }
        }
    }
    ids
}

/// The pre-token of an entry that is not empty, the first of so many bytes.
pub(super) fn pretoken_of<const KEY: usize, const SIZE: usize>(entry: &[u64; SIZE]) -> ([u8; MEDIUM_BYTES + 1], usize) {
    let mut bytes = [0; MEDIUM_BYTES + 1];
    for (place, word) in bytes.chunks_exact_mut(8).zip(&entry[..KEY]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    // The last byte has the length, beyond 16 in a key of 32 bytes, below the number of ids.
    let length = usize::from(bytes[8 * KEY - 1] & 0xF) + if 8 * KEY > 16 { 16 } else { 0 };
    (bytes, length)
}

/// A product of the halves of the key, folded: all its bits reach all bits of the hash.
#[inline(always)]
pub(super) fn hash_of<const KEY: usize>(key: &[u64; KEY]) -> u64 {
    let mut hash = 0;
    for pair in key.chunks_exact(2) {
        let product = (pair[0] ^ 0x9E37_79B9_7F4A_7C15 ^ hash) as u128 * (pair[1] ^ 0xD6E8_FEB8_6659_FD93) as u128;
        hash = product as u64 ^ (product >> 64) as u64;
    }
    hash
}

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
}
