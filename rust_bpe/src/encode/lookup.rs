//! The loop over pre-tokens: the ids of those that the table of short words knows, stored one behind the other.
//!
//! A hit stores all ids that its entry has room for and moves on by as many as count: no branch depends on their number.

use super::Id;
use super::words::{KEY_BITS, NO_KEY, SHORT_BYTES, ShortKey, ShortWords, Width, count_of, short_key};
use crate::processor::Avx2;

/// Ids that an entry has room for at most.
pub(super) const ROOM: usize = 8;

/// How far a run of known pre-tokens came.
pub(super) struct Run {
    /// The number of pre-tokens in it; all of them, or the next one is not in the table.
    pub n_pretokens: usize,
    pub n_ids: usize,
    /// Where the last one ends.
    pub end: usize,
}

/// The words of ids in an entry, and how many ids there are: none, or too many, where they are not the pre-token's.
pub(super) type Entry = ([u64; 2], usize);

/// Stores the ids of the pre-tokens of `text` from `start` on, which end at `ends`, until one is not in `words`.
///
/// `ids` must have room for [`ROOM`] ids a pre-token.
pub(super) fn run<T: Id>(
    processor: Option<Avx2>,
    words: &ShortWords,
    text: &[u8],
    start: usize,
    ends: &[usize],
    ids: &mut [T],
) -> Run {
    match processor {
        #[cfg(target_arch = "x86_64")]
        Some(processor) => super::avx2::run(processor, words, text, start, ends, ids),
        _ => run_by(Portable, words, text, start, ends, ids),
    }
}

/// How a pre-token is looked up.
pub(super) trait Look: Copy {
    /// The entry of `text[start..end]`.
    fn look(self, words: &ShortWords, text: &[u8], start: usize, end: usize) -> Entry;
}

/// The same by one way to look.
#[inline(always)]
pub(super) fn run_by<T: Id>(
    look: impl Look,
    words: &ShortWords,
    text: &[u8],
    start: usize,
    ends: &[usize],
    ids: &mut [T],
) -> Run {
    match words.width {
        Width::Narrow => run_of(look, store_narrow, 8, words, text, start, ends, ids),
        Width::Wide => run_of(look, store_wide, 4, words, text, start, ends, ids),
    }
}

#[expect(clippy::too_many_arguments)] // the loop itself, for two widths
#[inline(always)]
fn run_of<T: Id>(
    look: impl Look,
    store: impl Fn([u64; 2], &mut [T; ROOM]),
    most: usize,
    words: &ShortWords,
    text: &[u8],
    mut start: usize,
    ends: &[usize],
    ids: &mut [T],
) -> Run {
    let mut n_ids = 0;
    for (n_pretokens, &end) in ends.iter().enumerate() {
        let (found, count) = look.look(words, text, start, end);
        let Some(room) = ids[n_ids..].first_chunk_mut() else { return Run { n_pretokens, n_ids, end: start } };
        store(found, room);
        if count.wrapping_sub(1) >= most {
            return Run { n_pretokens, n_ids, end: start };
        }
        n_ids += count;
        start = end;
    }
    Run { n_pretokens: ends.len(), n_ids, end: start }
}

#[inline(always)]
fn store_narrow<T: Id>([first, second]: [u64; 2], room: &mut [T; ROOM]) {
    *room = std::array::from_fn(|place| {
        let word = if place < 4 { first } else { second };
        T::from_id((word >> (16 * (place % 4))) as u32 & 0xFFFF)
    });
}

#[inline(always)]
fn store_wide<T: Id>([first, second]: [u64; 2], room: &mut [T; ROOM]) {
    let ids = [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32];
    for (place, id) in room.iter_mut().zip(ids) {
        *place = T::from_id(id);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Look for Portable {
    #[inline(always)]
    fn look(self, words: &ShortWords, text: &[u8], start: usize, end: usize) -> Entry {
        let key: ShortKey = if end - start <= SHORT_BYTES { short_key(text, start, end) } else { NO_KEY };
        let Some([newer, older]) = words.bucket(&key) else { return ([0; 2], 0) };
        let is_same = |entry: &[u64; 4]| (entry[0] ^ key[0]) | (entry[1] & KEY_BITS ^ key[1]) == 0;
        let (is_newer, is_older) = (is_same(newer), is_same(older));
        let entry = if is_older { older } else { newer };
        ([entry[2], entry[3]], if is_newer | is_older { count_of(entry[1]) } else { 0 })
    }
}
