//! What each token stands for, as far as training needs it: its length, its bytes, and its place in a tie.

use std::cmp::Ordering;

use super::{Alphabet, Ties};
use crate::error::{Error, Result};

/// Tokens by number: base symbols, then merges. What a merge makes is not written out: that took a tenth of a
/// microsecond a merge, a twentieth of training 128,000 ids, and only ties between long tokens ask for it.
pub struct Tokens {
    ties: Ties,
    facts: Vec<Facts>,
    /// The bytes of the base symbols.
    base: Vec<Box<[u8]>>,
    /// The two tokens of each merge.
    merges: Vec<(u32, u32)>,
}

/// In 16 bytes, a part of one cache line.
struct Facts {
    /// What decides a tie first, the greater wins: for [`Ties::Bytes`] the first eight bytes, padded with zeros, else
    /// the complement of the number that ids are compared by.
    order: u64,
    n_bytes: u32,
    /// Base symbols that the token is made of.
    n_symbols: u32,
}

impl Tokens {
    pub fn new(alphabet: &Alphabet, ties: Ties) -> Self {
        let base: Vec<Box<[u8]>> = match alphabet {
            Alphabet::Bytes => (0..=u8::MAX).map(|byte| [byte].into()).collect(),
            Alphabet::Chars(chars) => chars.iter().map(|c| c.encode_utf8(&mut [0; 4]).as_bytes().into()).collect(),
        };
        let visible: Vec<u32> = match alphabet {
            Alphabet::Bytes => (0..=u8::MAX).map(|byte| visible_character(byte) as u32).collect(),
            Alphabet::Chars(chars) => chars.iter().map(|&c| c as u32).collect(),
        };
        let order = |symbol: usize| match ties {
            Ties::Bytes => {
                let mut prefix = [0; PREFIX_BYTES as usize];
                prefix[..base[symbol].len()].copy_from_slice(&base[symbol]); // a character has at most four
                u64::from_be_bytes(prefix)
            }
            Ties::Ids => order_of_id(symbol),
            Ties::HuggingFace => order_of_id(visible.iter().filter(|&&other| other < visible[symbol]).count()),
        };
        let facts = (0..base.len())
            .map(|symbol| Facts { order: order(symbol), n_bytes: base[symbol].len() as u32, n_symbols: 1 })
            .collect();
        Tokens { ties, facts, base, merges: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.facts.len()
    }

    /// Adds the token that joins `left` and `right`, and returns its number.
    pub fn join(&mut self, left: u32, right: u32) -> u32 {
        let token = self.len();
        let (x, y) = (&self.facts[left as usize], &self.facts[right as usize]);
        let order = match self.ties {
            Ties::Bytes if x.n_bytes < PREFIX_BYTES => x.order | y.order >> (8 * x.n_bytes),
            Ties::Bytes => x.order,
            Ties::Ids | Ties::HuggingFace => order_of_id(token),
        };
        // A word has less than 2^32 bytes, so these sums fit.
        let facts = Facts { order, n_bytes: x.n_bytes + y.n_bytes, n_symbols: x.n_symbols + y.n_symbols };
        self.facts.push(facts);
        self.merges.push((left, right));
        token as u32
    }

    #[inline]
    pub fn n_bytes(&self, token: u32) -> usize {
        self.facts[token as usize].n_bytes as usize
    }

    #[inline]
    pub fn n_symbols(&self, token: u32) -> usize {
        self.facts[token as usize].n_symbols as usize
    }

    /// The first word in a tie between pairs: the greater one is merged first; equal ones ask [`Tokens::compare`].
    pub fn tie_key(&self, (left, right): (u32, u32)) -> u64 {
        match self.ties {
            Ties::Bytes => self.order(left),
            Ties::Ids | Ties::HuggingFace => (self.order(left) << 32) | self.order(right),
        }
    }

    /// The last word in a tie: the greater pair is merged first.
    pub fn compare(&self, a: (u32, u32), b: (u32, u32)) -> Ordering {
        match self.ties {
            Ties::Bytes => self.compare_bytes(a.0, b.0).then_with(|| self.compare_bytes(a.1, b.1)),
            Ties::Ids | Ties::HuggingFace => self.tie_key(a).cmp(&self.tie_key(b)),
        }
    }

    fn order(&self, token: u32) -> u64 {
        self.facts[token as usize].order
    }

    fn compare_bytes(&self, a: u32, b: u32) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        self.order(a).cmp(&self.order(b)).then_with(|| self.bytes(a).cmp(&self.bytes(b)))
    }

    /// The bytes of a token, put together.
    fn bytes(&self, token: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.n_bytes(token));
        let mut ahead = vec![token as usize];
        while let Some(token) = ahead.pop() {
            match self.base.get(token) {
                Some(symbol) => bytes.extend_from_slice(symbol),
                None => {
                    let (left, right) = self.merges[token - self.base.len()];
                    ahead.extend([right as usize, left as usize]);
                }
            }
        }
        bytes
    }
}

/// So many bytes of a token are compared at once.
const PREFIX_BYTES: u32 = 8;

fn order_of_id(id: usize) -> u64 {
    u64::from(!(id as u32))
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
