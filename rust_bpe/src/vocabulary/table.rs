//! The strings of all tokens by id, and the ids by string.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use crate::memory;
use crate::token::{MAX_VOCAB_SIZE, TokenId};

/// Tokens as one buffer with a span per id. Ids may have holes; strings and ids are distinct, no string is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenTable {
    buffer: Vec<u8>,
    /// Start and length by id; length 0 is a hole.
    spans: Vec<(u32, u32)>,
    /// Open addressing by the hash of a string: its id, and above that a part of the hash, which tells nearly all other
    /// strings from it. They stand in other places of the memory, and most words that are looked up are no tokens.
    slots: Vec<u32>,
    n_tokens: usize,
}

const FREE: u32 = u32::MAX;
const ID_BITS: u32 = MAX_VOCAB_SIZE.ilog2() + 1;
const ID_MASK: u32 = (1 << ID_BITS) - 1; // no id: see FREE

impl TokenTable {
    /// Makes room for so many tokens of so many bytes in all; more may be inserted.
    pub fn with_capacity(n_tokens: usize, n_bytes: usize) -> Self {
        let n_tokens = n_tokens.min(MAX_VOCAB_SIZE);
        Self {
            buffer: Vec::with_capacity(n_bytes),
            spans: Vec::with_capacity(n_tokens),
            slots: vec![FREE; (n_tokens * 2).next_power_of_two().max(1024)],
            n_tokens: 0,
        }
    }

    /// Adds a token. The error says what is wrong with it, for a caller that knows where it stands.
    pub fn insert(&mut self, id: TokenId, token: &[u8]) -> Result<(), String> {
        if id as usize >= MAX_VOCAB_SIZE {
            return Err(format!("id {id} is too large: ids go up to {}", MAX_VOCAB_SIZE - 1));
        }
        if token.is_empty() {
            return Err(format!("the token of id {id} is empty"));
        }
        let start =
            u32::try_from(self.buffer.len()).ok().filter(|start| start.checked_add(token.len() as u32).is_some());
        let Some(start) = start.filter(|_| token.len() < u32::MAX as usize) else {
            return Err("the tokens are longer than 4 GiB in all".to_owned());
        };
        if let Some(own) = self.get(id) {
            return Err(format!("id {id} is given to both {} and {}", show(own), show(token)));
        }
        self.reserve_slots();
        let hash = hash(token);
        let slot = self.slot_of(token, hash);
        if self.slots[slot] != FREE {
            return Err(format!("token {} has two ids, {} and {id}", show(token), self.slots[slot] & ID_MASK));
        }
        self.slots[slot] = mark(hash) | id;
        if self.spans.len() <= id as usize {
            self.spans.resize(id as usize + 1, (0, 0));
        }
        self.spans[id as usize] = (start, token.len() as u32);
        self.buffer.extend_from_slice(token);
        self.n_tokens += 1;
        Ok(())
    }

    /// The string of `id`; None for a hole.
    pub fn get(&self, id: TokenId) -> Option<&[u8]> {
        let &(start, length) = self.spans.get(id as usize)?;
        (length > 0).then(|| &self.buffer[start as usize..(start + length) as usize])
    }

    pub fn id_of(&self, token: &[u8]) -> Option<TokenId> {
        if self.slots.is_empty() {
            return None;
        }
        Some(self.slots[self.slot_of(token, hash(token))]).filter(|&slot| slot != FREE).map(|slot| slot & ID_MASK)
    }

    /// Calls what [`TokenTable::id_of`] reads first into the caches.
    pub fn prefetch(&self, token: &[u8]) {
        memory::prefetch(&self.slots, hash(token) as usize & self.slots.len().wrapping_sub(1));
    }

    /// All tokens in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (TokenId, &[u8])> {
        (0..self.spans.len() as TokenId).filter_map(|id| Some((id, self.get(id)?)))
    }

    /// Number of tokens, holes not counted.
    pub fn len(&self) -> usize {
        self.n_tokens
    }

    /// The largest id + 1; 0 when there is no token.
    pub fn n_ids(&self) -> usize {
        self.spans.len()
    }

    /// Makes room for one more token in the slots, which are at most half taken.
    fn reserve_slots(&mut self) {
        if (self.n_tokens + 1) * 2 > self.slots.len() {
            let size = (self.n_tokens * 4).next_power_of_two().max(1024);
            let old = std::mem::replace(&mut self.slots, vec![FREE; size]);
            for taken in old.into_iter().filter(|&slot| slot != FREE) {
                let token = self.get(taken & ID_MASK).unwrap_or_default();
                let slot = self.slot_of(token, hash(token));
                self.slots[slot] = taken;
            }
        }
    }

    /// The slot that holds the token, or the free one where it would be; there are slots.
    fn slot_of(&self, token: &[u8], hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let taken = self.slots[slot];
            let may_be = taken & !ID_MASK == mark(hash);
            if taken == FREE || may_be && self.get(taken & ID_MASK) == Some(token) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }
}

fn hash(token: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(token);
    hasher.finish()
}

/// The part of a hash that stands in a slot: its highest bits, for the lowest say which slot.
fn mark(hash: u64) -> u32 {
    (hash >> 32) as u32 & !ID_MASK
}

/// A token for a message: as text where it is text, short.
pub(crate) fn show(token: &[u8]) -> String {
    const SHOWN: usize = 40;
    let text = String::from_utf8_lossy(&token[..token.len().min(SHOWN)]).into_owned();
    if token.len() > SHOWN { format!("{text:?}...") } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_ids_find_each_other_across_holes() {
        let mut table = TokenTable::default();
        for id in (0..5000).step_by(3) {
            table.insert(id, format!("token {id}").as_bytes()).unwrap();
        }
        for id in 0..5000 {
            let token = format!("token {id}").into_bytes();
            let there = id % 3 == 0;
            assert_eq!(table.get(id), there.then_some(&token[..]));
            assert_eq!(table.id_of(&token), there.then_some(id));
        }
        assert_eq!((table.len(), table.n_ids()), (1667, 4999));
        assert_eq!(table.iter().count(), 1667);
    }

    #[test]
    fn what_is_not_distinct_is_refused() {
        let mut table = TokenTable::default();
        table.insert(1, b"one").unwrap();
        assert!(table.insert(2, b"one").unwrap_err().contains("two ids, 1 and 2"));
        assert!(table.insert(1, b"two").unwrap_err().contains("id 1 is given to both"));
        assert!(table.insert(3, b"").unwrap_err().contains("empty"));
        assert!(table.insert(MAX_VOCAB_SIZE as u32, b"x").unwrap_err().contains("too large"));
        assert_eq!(table.len(), 1);
    }
}
