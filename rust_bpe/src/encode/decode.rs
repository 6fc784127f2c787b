//! Ids back to bytes: the strings of the tokens one after the other.

use super::{Encoder, Id};
use crate::error::{Error, Result};

impl Encoder {
    /// The bytes of `ids`, special tokens included. They need not be UTF-8: a token may end inside a character.
    ///
    /// [`Error::UnknownId`] for an id that no token has.
    pub fn decode<T: Id>(&self, ids: &[T]) -> Result<Vec<u8>> {
        let vocabulary = self.vocabulary();
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for id in ids.iter().map(|id| id.to_id()) {
            let token = vocabulary.token_bytes(id);
            let unknown = || Error::UnknownId { id: id.into(), largest: vocabulary.largest_id() };
            bytes.extend_from_slice(token.ok_or_else(unknown)?);
        }
        Ok(bytes)
    }
}
