//! Encoding a text that comes in chunks: holds one unfinished pre-token, gives the ids of the whole text.
//!
//! What is held may still change its meaning: bytes that could begin a special token, and those after the last place
//! where the pattern can be cut. A cut is looked for when the held text has doubled since none was found, so a long
//! pre-token is looked through a constant number of times whatever the chunks.

use std::sync::Arc;

use super::{Cache, Encoder, Id};
use crate::error::{Error, Result};
use crate::special::Special;
use crate::token::MAX_PRETOKEN_BYTES;

/// Text is gathered up to this length before it is encoded, so that small chunks cost little.
const GATHERED_BYTES: usize = 16 << 10;

/// One text on its way through an [`Encoder`].
#[derive(Debug)]
pub struct Stream {
    encoder: Arc<Encoder>,
    special: Special,
    held: Vec<u8>,
    /// Length of the held text at which to look for a cut again.
    look_at: usize,
    /// Bytes of the text before the held part.
    position: u64,
}

impl Stream {
    pub fn new(encoder: Arc<Encoder>, special: Special) -> Self {
        Self { encoder, special, held: Vec::new(), look_at: GATHERED_BYTES, position: 0 }
    }

    /// Takes the next chunk and appends to `out` the ids that are certain by now.
    ///
    /// Errors as [`Encoder::encode`], positions counted from the start of the text. After an error the stream is of no
    /// further use.
    pub fn push<T: Id>(&mut self, chunk: &[u8], cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        // A large chunk is taken in parts: the held text stays small, however much comes at once.
        for part in chunk.chunks(GATHERED_BYTES) {
            self.held.extend_from_slice(part);
            if self.held.len() >= self.look_at {
                self.encode_certain(cache, out)?;
                self.look_at = self.held.len() * 2 + GATHERED_BYTES;
            }
        }
        Ok(())
    }

    /// Ends the text and appends its last ids.
    pub fn finish<T: Id>(mut self, cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        self.encode(&held, cache, out)
    }

    fn encode_certain<T: Id>(&mut self, cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        let mut held = std::mem::take(&mut self.held);
        let certain = self.certain(&held);
        self.encode(&held[..certain], cache, out)?;
        held.drain(..certain);
        self.position += certain as u64;
        if held.len() > MAX_PRETOKEN_BYTES + self.encoder.vocabulary().special_tokens().longest_bytes() {
            return Err(Error::PreTokenTooLong { position: self.position });
        }
        self.held = held;
        Ok(())
    }

    /// How much of the held text can be encoded whatever follows it.
    fn certain(&self, held: &[u8]) -> usize {
        let specials = self.encoder.vocabulary().special_tokens();
        if self.special == Special::Text || specials.is_empty() {
            return self.encoder.safe_cut(held).unwrap_or(0);
        }
        // A special token that begins before `limit` has come in whole; one that begins later may grow or appear.
        let limit = (held.len() + 1).saturating_sub(specials.longest_bytes());
        let mut start = 0;
        while let Some((place, _)) = specials.find(held, start).filter(|(place, _)| place.start < limit) {
            start = place.end;
        }
        if start >= limit {
            return start;
        }
        start + self.encoder.safe_cut(&held[start..limit]).unwrap_or(0)
    }

    fn encode<T: Id>(&self, text: &[u8], cache: &mut Cache, out: &mut Vec<T>) -> Result<()> {
        self.encoder.encode(text, self.special, cache, out).map_err(|error| error.moved(self.position))
    }
}
