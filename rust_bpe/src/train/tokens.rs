//! What each token stands for, as far as training needs it: its length, its bytes, and its place in a tie.

use std::cmp::Ordering;
use std::ops::Range;

use super::{Alphabet, Ties};
use crate::error::{Error, Result};

/// Tokens by number: base symbols, then merges. All are written out: putting them together from their parts when a tie
/// asks takes as long at 128,000 ids of English (0.26 s) and longer where bytes settle ties (0.27 for 0.26).
pub struct Tokens {
    ties: Ties,
    bytes: Vec<u8>,
    /// `ends[i]` is where token i ends in `bytes`.
    ends: Vec<usize>,
    /// Base symbols that each token is made of.
    n_symbols: Vec<u32>,
    /// What decides a tie first, the greater wins: for [`Ties::Bytes`] the first eight bytes, padded with zeros, else
    /// the complement of the number that ids are compared by.
    order: Vec<u64>,
}

impl Tokens {
    pub fn new(alphabet: &Alphabet, ties: Ties) -> Self {
        let mut tokens = Tokens { ties, bytes: Vec::new(), ends: Vec::new(), n_symbols: Vec::new(), order: Vec::new() };
        let visible: Vec<u32> = match alphabet {
            Alphabet::Bytes => (0..=u8::MAX).map(|byte| visible_character(byte) as u32).collect(),
            Alphabet::Chars(chars) => chars.iter().map(|&c| c as u32).collect(),
        };
        for symbol in 0..alphabet.len() {
            let id = match ties {
                Ties::HuggingFace => visible.iter().filter(|&&other| other < visible[symbol]).count(),
                Ties::Ids | Ties::Bytes => symbol,
            };
            match alphabet {
                Alphabet::Bytes => tokens.bytes.push(symbol as u8),
                Alphabet::Chars(chars) => tokens.bytes.extend(chars[symbol].encode_utf8(&mut [0; 4]).as_bytes()),
            }
            tokens.push(1, id);
        }
        tokens
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds the token that joins `left` and `right`, and returns its number.
    pub fn join(&mut self, left: u32, right: u32) -> u32 {
        let token = self.len();
        for part in [left, right] {
            self.bytes.extend_from_within(self.span(part));
        }
        self.push(self.n_symbols(left) + self.n_symbols(right), token);
        token as u32
    }

    pub fn bytes(&self, token: u32) -> &[u8] {
        &self.bytes[self.span(token)]
    }

    fn span(&self, token: u32) -> Range<usize> {
        let token = token as usize;
        let start = if token == 0 { 0 } else { self.ends[token - 1] };
        start..self.ends[token]
    }

    #[inline]
    pub fn n_symbols(&self, token: u32) -> usize {
        self.n_symbols[token as usize] as usize
    }

    /// The first word in a tie between pairs: the greater one is merged first; equal ones ask [`Tokens::compare`].
    pub fn tie_key(&self, (left, right): (u32, u32)) -> u64 {
        match self.ties {
            Ties::Bytes => self.order[left as usize],
            Ties::Ids | Ties::HuggingFace => (self.order[left as usize] << 32) | self.order[right as usize],
        }
    }

    /// The last word in a tie: the greater pair is merged first.
    pub fn compare(&self, a: (u32, u32), b: (u32, u32)) -> Ordering {
        match self.ties {
            Ties::Bytes => self.compare_bytes(a.0, b.0).then_with(|| self.compare_bytes(a.1, b.1)),
            Ties::Ids | Ties::HuggingFace => self.tie_key(a).cmp(&self.tie_key(b)),
        }
    }

    fn compare_bytes(&self, a: u32, b: u32) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        let prefix = |token: u32| self.order[token as usize];
        prefix(a).cmp(&prefix(b)).then_with(|| self.bytes(a).cmp(self.bytes(b)))
    }

    /// Makes a token of the bytes that were added last.
    fn push(&mut self, n_symbols: usize, id: usize) {
        let start = self.ends.last().copied().unwrap_or(0);
        self.ends.push(self.bytes.len());
        self.n_symbols.push(n_symbols as u32);
        self.order.push(match self.ties {
            Ties::Bytes => {
                let bytes = &self.bytes[start..];
                let mut prefix = [0; 8];
                let len = bytes.len().min(8);
                prefix[..len].copy_from_slice(&bytes[..len]);
                u64::from_be_bytes(prefix)
            }
            Ties::Ids | Ties::HuggingFace => u64::from(!(id as u32)),
        });
    }
}

/// The character that stands for a byte in Hugging Face's files: itself where it is visible in Latin-1, else the next
/// free one from U+0100 on (GPT-2, `bytes_to_unicode`).
fn visible_character(byte: u8) -> char {
    let is_visible = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if is_visible(byte) {
        return byte as char;
    }
    let n_before = (0..byte).filter(|&other| !is_visible(other)).count() as u32;
    char::from_u32(0x100 + n_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// A word as text, for alphabets of characters.
pub fn decode(word: &[u8]) -> Result<&str> {
    std::str::from_utf8(word).map_err(|error| {
        Error::Setting(format!(
            "an alphabet of characters needs UTF-8 text, but the word {:?} is not, from its byte {} on",
            String::from_utf8_lossy(&word[..word.len().min(40)]),
            error.valid_up_to()
        ))
    })
}
