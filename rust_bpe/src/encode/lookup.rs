//! The loop over pre-tokens: the ids of those that the table of short words knows, stored one behind the other.
//!
//! Keys of a stretch of pre-tokens are made first, and the bucket of each is called into the caches; when the loop that
//! compares comes to it, it is there. A hit stores all ids that its entry has room for and moves on by as many as count: no
//! branch depends on their number.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::Id;
use super::entry::{KEY_BITS, NO_KEY, SHORT_BYTES, SPILLED, ShortKey, Width, count_of, hash_of, short_key};
use super::shared::Generation;
use super::words::ShortWords;
use super::write_once::{self, Bucket};
use crate::checksum::Streams;
use crate::processor::Avx2;
use crate::token::TokenId;

/// Ids that an entry has room for at most.
const ENTRY_ROOM: usize = 8;

/// Ids that are stored for a pre-token at most.
pub(super) const ROOM: usize = 16;

/// Pre-tokens whose keys are made at once: their buckets fill a quarter of the first cache.
pub(super) const STRETCH: usize = 128;

/// The keys of a stretch of pre-tokens, and their hashes in the table of short words.
pub(super) type Keys = [(ShortKey, u64); STRETCH];

/// How far a run of known pre-tokens came.
pub(super) struct Run {
    /// The number of pre-tokens in it; all of them, or the next one is not in the table.
    pub n_pretokens: usize,
    pub n_ids: usize,
}

/// The words of ids in an entry, and how many ids there are: none, or too many, where they are not the pre-token's.
pub(super) type Entry = ([u64; 2], usize);

/// A table of short words, as the loop sees it. (A trait, so that the loop is compiled for each kind by itself: loads that the
/// language allows beside a writer cost one thread 2 to 8 %.)
pub(super) trait Known: Copy {
    fn width(self) -> Width;

    /// Calls the bucket of a hash into the caches.
    fn prefetch(self, hash: u64);

    /// The entry of a key with this hash.
    fn find(self, look: impl Look, hash: u64, key: &ShortKey) -> Entry;

    /// [`ROOM`] tokens of those that are too many for an entry, from one place on.
    fn spilled(self, start: usize) -> Option<[TokenId; ROOM]>;
}

/// What a thread knows by itself: its short words, and the tokens that are too many for an entry.
#[derive(Clone, Copy)]
pub(super) struct Own<'t>(pub &'t ShortWords, pub &'t [TokenId]);

impl Known for Own<'_> {
    #[inline(always)]
    fn width(self) -> Width {
        self.0.width
    }

    #[inline(always)]
    fn prefetch(self, hash: u64) {
        self.0.prefetch(hash);
    }

    #[inline(always)]
    fn find(self, look: impl Look, hash: u64, key: &ShortKey) -> Entry {
        self.0.bucket(hash).map_or(([0; 2], 0), |bucket| look.find(bucket, key))
    }

    #[inline(always)]
    fn spilled(self, start: usize) -> Option<[TokenId; ROOM]> {
        self.1.get(start..)?.first_chunk().copied()
    }
}

/// What threads share: slices, for the loads that tell what others wrote must not be moved, and those of where the table is
/// would be done anew behind each.
#[derive(Clone, Copy)]
pub(super) struct Common<'t> {
    width: Width,
    buckets: &'t [Bucket<4>],
    spilled: &'t [AtomicU32],
}

impl<'t> Common<'t> {
    pub fn of(generation: &'t Generation) -> Self {
        let Generation { short, spilled, .. } = generation;
        Self { width: short.width(), buckets: short.buckets(), spilled: spilled.ids() }
    }
}

impl Known for Common<'_> {
    #[inline(always)]
    fn width(self) -> Width {
        self.width
    }

    #[inline(always)]
    fn prefetch(self, hash: u64) {
        write_once::prefetch(self.buckets, hash);
    }

    #[inline(always)]
    fn find(self, _: impl Look, hash: u64, key: &ShortKey) -> Entry {
        write_once::find_first(self.buckets, hash, key)
    }

    #[inline(always)]
    fn spilled(self, start: usize) -> Option<[TokenId; ROOM]> {
        let ids: &[AtomicU32; ROOM] = self.spilled.get(start..)?.first_chunk()?;
        Some(std::array::from_fn(|place| ids[place].load(Relaxed)))
    }
}

/// Makes the keys of the pre-tokens of `text` from `start` on, which end at `ends`, at most [`STRETCH`] of them. Where the
/// processor can, hashes some of `streams` meanwhile.
pub(super) fn make_keys(
    processor: Option<Avx2>,
    words: impl Known,
    text: &[u8],
    start: usize,
    ends: &[usize],
    keys: &mut Keys,
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused))] streams: &mut Streams,
) {
    match processor {
        #[cfg(target_arch = "x86_64")]
        Some(processor) => super::avx2::make_keys(processor, words, text, start, ends, keys, streams),
        _ => make_keys_by(Portable, words, text, start, ends, keys),
    }
}

/// Stores the ids of the pre-tokens that have these keys, until one is not in `words`.
///
/// `ids` must have room for [`ROOM`] ids a pre-token.
pub(super) fn run<T: Id>(processor: Option<Avx2>, words: impl Known, keys: &[(ShortKey, u64)], ids: &mut [T]) -> Run {
    match processor {
        #[cfg(target_arch = "x86_64")]
        Some(processor) => super::avx2::run(processor, words, keys, ids),
        _ => run_by(Portable, words, keys, ids),
    }
}

/// How a pre-token is looked up.
pub(super) trait Look: Copy {
    /// The key of `text[start..end]`, or [`NO_KEY`].
    fn key(self, text: &[u8], start: usize, end: usize) -> ShortKey;

    /// The entry of a key in its bucket.
    fn find(self, bucket: &[[u64; 4]; 2], key: &ShortKey) -> Entry;
}

/// [`make_keys`] by one way to look.
#[inline(always)]
pub(super) fn make_keys_by(
    look: impl Look,
    words: impl Known,
    text: &[u8],
    mut start: usize,
    ends: &[usize],
    keys: &mut [(ShortKey, u64)],
) {
    for (&end, place) in ends.iter().zip(keys) {
        *place = make_key(look, words, text, start, end);
        start = end;
    }
}

/// The key of `text[start..end]` and its hash; its bucket is called.
#[inline(always)]
pub(super) fn make_key(look: impl Look, words: impl Known, text: &[u8], start: usize, end: usize) -> (ShortKey, u64) {
    let key = look.key(text, start, end);
    let hash = hash_of(&key);
    words.prefetch(hash);
    (key, hash)
}

/// [`run`] by one way to look.
#[inline(always)]
pub(super) fn run_by<T: Id>(look: impl Look, words: impl Known, keys: &[(ShortKey, u64)], ids: &mut [T]) -> Run {
    match words.width() {
        Width::Narrow => run_of(look, store_narrow, 8, words, keys, ids),
        Width::Wide => run_of(look, store_wide, 4, words, keys, ids),
    }
}

#[inline(always)]
fn run_of<T: Id>(
    look: impl Look,
    store: impl Fn([u64; 2], &mut [T; ENTRY_ROOM]),
    most: usize,
    words: impl Known,
    keys: &[(ShortKey, u64)],
    ids: &mut [T],
) -> Run {
    let mut n_ids = 0;
    for (n_pretokens, (key, hash)) in keys.iter().enumerate() {
        let (found, count) = words.find(look, *hash, key);
        let Some(room) = ids[n_ids..].first_chunk_mut::<ROOM>() else { return Run { n_pretokens, n_ids } };
        if let Some(room) = room.first_chunk_mut() {
            store(found, room);
        }
        if count.wrapping_sub(1) >= most {
            let Some((tokens, n_tokens)) = spilled_tokens(found, count, words) else {
                return Run { n_pretokens, n_ids };
            };
            *room = tokens.map(T::from_id);
            n_ids += n_tokens;
            continue;
        }
        n_ids += count;
    }
    Run { n_pretokens: keys.len(), n_ids }
}

/// The tokens of an entry that stand elsewhere, the first of so many, where they are not more than [`ROOM`].
///
/// Many words are of that kind where a vocabulary has few tokens for a script. The last words there are left to the
/// caller, so that a block of one size can be copied.
#[inline(always)]
fn spilled_tokens(found: [u64; 2], count: usize, words: impl Known) -> Option<([TokenId; ROOM], usize)> {
    let (start, end) = (found[0] as u32 as usize, (found[0] >> 32) as usize);
    let is_short = count == SPILLED && end - start <= ROOM;
    let tokens = if is_short { words.spilled(start)? } else { return None };
    Some((tokens, end - start))
}

#[inline(always)]
fn store_narrow<T: Id>([first, second]: [u64; 2], room: &mut [T; ENTRY_ROOM]) {
    *room = std::array::from_fn(|place| {
        let word = if place < 4 { first } else { second };
        T::from_id((word >> (16 * (place % 4))) as u32 & 0xFFFF)
    });
}

#[inline(always)]
fn store_wide<T: Id>([first, second]: [u64; 2], room: &mut [T; ENTRY_ROOM]) {
    let ids = [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32];
    for (place, id) in room.iter_mut().zip(ids) {
        *place = T::from_id(id);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Look for Portable {
    #[inline(always)]
    fn key(self, text: &[u8], start: usize, end: usize) -> ShortKey {
        if end - start <= SHORT_BYTES { short_key(text, start, end) } else { NO_KEY }
    }

    #[inline(always)]
    fn find(self, bucket: &[[u64; 4]; 2], key: &ShortKey) -> Entry {
        let is_same = |entry: &[u64; 4]| (entry[0] ^ key[0]) | (entry[1] & KEY_BITS ^ key[1]) == 0;
        let entry = &bucket[usize::from(!is_same(&bucket[0]))];
        ([entry[2], entry[3]], if is_same(entry) { count_of(entry[1]) } else { 0 })
    }
}
