//! Pre-tokens met for the first time: a few wait for each other, then they are merged together.
//!
//! Merging waits for the memory and for branches that nothing foresees; several words fill each other's pauses. The ids of
//! what comes behind a word that waits are written all the same, and make room for its tokens later.

use super::entry::MEDIUM_BYTES;
use super::{Cache, Encoder, Id};
use crate::error::Result;
use crate::merge::LANES;

/// Ids that are moved at once at most, so that they are still in the caches.
const MOST_BEHIND: usize = 1 << 13;

/// A pre-token that waits to be merged.
pub(super) struct Missed {
    /// Where its tokens belong among the ids.
    at: usize,
    /// Where it stands in the text.
    start: usize,
    end: usize,
}

impl Encoder {
    /// Appends the tokens of a pre-token that the loop does not know to `out`, or lets it wait.
    #[inline(never)]
    pub(super) fn miss<T: Id>(
        &self,
        text: &[u8],
        (start, end): (usize, usize),
        cache: &mut Cache,
        out: &mut Vec<T>,
    ) -> Result<()> {
        let pretoken = &text[start..end];
        if pretoken.len() > MEDIUM_BYTES || cache.tables.is_small() {
            let outcome = self.one(pretoken, cache, out);
            if outcome.is_err() {
                self.settle(text, cache, out)?; // what is wrong before that comes first
            }
            return outcome.map_err(|error| error.moved(start as u64));
        }
        if cache.tables.recall(pretoken, &mut cache.tokens) {
            out.extend(cache.tokens.iter().map(|&id| T::from_id(id)));
            return Ok(());
        }
        if self.vocabulary.ignore_merges() {
            self.vocabulary.prefetch(pretoken);
        }
        cache.missed.push(Missed { at: out.len(), start, end });
        if cache.missed.len() == LANES { self.settle(text, cache, out) } else { Ok(()) }
    }

    /// [`Encoder::settle`] if ids of many others stand behind the first pre-token that waits.
    #[inline(always)]
    pub(super) fn settle_if_far<T: Id>(&self, text: &[u8], cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        match cache.missed.first() {
            Some(first) if out.len() - first.at > MOST_BEHIND => self.settle(text, cache, out),
            _ => Ok(()),
        }
    }

    /// Merges the pre-tokens of `text` that wait, remembers them, and puts their tokens where they belong.
    pub(super) fn settle<T: Id>(&self, text: &[u8], cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        let Cache { tables, batch, missed, shared, .. } = cache;
        batch.clear();
        for &Missed { start, end, .. } in missed.iter() {
            let (lane, pretoken) = (batch.add(), &text[start..end]);
            tables.prefetch(pretoken);
            match self.whole(pretoken) {
                Some(id) => lane.set(id),
                None => {
                    let pushed = self.base.each_symbol(pretoken, |id| lane.push(id));
                    pushed.map_err(|error| error.moved(start as u64))?;
                }
            }
        }
        batch.merge(&self.ranks);
        let mut end_of_ids = out.len();
        let n_tokens: usize = (0..missed.len()).map(|lane| batch.tokens(lane).len()).sum();
        out.resize(end_of_ids + n_tokens, T::default());
        let mut room = out.len();
        for (lane, &Missed { at, start, end }) in missed.iter().enumerate().rev() {
            let (tokens, pretoken) = (batch.tokens(lane), &text[start..end]);
            room -= end_of_ids - at;
            out.copy_within(at..end_of_ids, room);
            end_of_ids = at;
            room -= tokens.len();
            out[room..].iter_mut().zip(tokens).for_each(|(place, &id)| *place = T::from_id(id));
            // It may have been missed twice.
            if !tables.has(pretoken) {
                tables.remember(pretoken, tokens);
            }
        }
        missed.clear();
        tables.meet(shared.as_ref().filter(|shared| shared.serial == self.serial));
        Ok(())
    }
}
