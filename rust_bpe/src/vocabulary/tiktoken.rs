//! `.tiktoken` files: a line for each token, its bytes in base 64, a space, its rank. The rank is also the id.
//!
//! There are no merges in such a file. The rule of tiktoken: a pre-token that is a token stays whole; else the two
//! neighbours whose joined bytes have the lowest rank are joined, of several such the leftmost, until no two can be.
//! That is merging by a list all the same: inside the bytes of a token T, merging goes on as it does when T stands
//! alone, so only one pair of tokens can ever become T, the last two when its bytes are merged without it. A token
//! whose bytes do not end in two is never made by merging; only the rule of whole pre-tokens reaches it.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::table::{TokenTable, show};
use super::{Base, Merge, Parts, Vocabulary, damaged, read_file};
use crate::error::{Error, Result};
use crate::merge::{Merger, NO_RANK, PairTable, Ranks};
use crate::pretokenize::Pattern;
use crate::token::TokenId;

/// A published vocabulary: what its file does not say.
#[derive(Debug)]
pub struct Known {
    pub name: &'static str,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: &'static str,
    pub pattern: Pattern,
    pub special_tokens: &'static [(&'static str, TokenId)],
}

/// Source: tiktoken 0.14, `tiktoken_ext/openai_public.py`.
pub const KNOWN: [Known; 3] = [
    Known {
        name: "gpt2",
        sha256: "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
        pattern: Pattern::Gpt2,
        special_tokens: &[("<|endoftext|>", 50256)],
    },
    Known {
        name: "cl100k",
        sha256: "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        pattern: Pattern::Cl100k,
        special_tokens: &[
            ("<|endoftext|>", 100257),
            ("<|fim_prefix|>", 100258),
            ("<|fim_middle|>", 100259),
            ("<|fim_suffix|>", 100260),
            ("<|endofprompt|>", 100276),
        ],
    },
    Known {
        name: "o200k",
        sha256: "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        pattern: Pattern::O200k,
        special_tokens: &[("<|endoftext|>", 199999), ("<|endofprompt|>", 200018)],
    },
];

impl Vocabulary {
    /// Reads a `.tiktoken` file. One of [`KNOWN`], recognised by its SHA-256, brings its pattern and special tokens;
    /// `pattern` and `specials` go before those.
    ///
    /// Errors: [`Error::Setting`] when the file is not known and no pattern is given; [`Error::Format`] for a damaged
    /// one, with the line.
    pub fn from_tiktoken(
        path: &Path,
        pattern: Option<Pattern>,
        specials: Option<Vec<(String, TokenId)>>,
    ) -> Result<Self> {
        Self::from_tiktoken_bytes(&read_file(path)?, path, pattern, specials)
    }

    /// Reads the bytes of a `.tiktoken` file; `path` is for messages alone.
    pub fn from_tiktoken_bytes(
        file: &[u8],
        path: &Path,
        pattern: Option<Pattern>,
        specials: Option<Vec<(String, TokenId)>>,
    ) -> Result<Self> {
        let sha256: String = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
        let known = KNOWN.iter().find(|known| known.sha256 == sha256);
        let Some(pattern) = pattern.or_else(|| known.map(|known| known.pattern.clone())) else {
            return Err(Error::Setting(format!(
                "{}: a .tiktoken file does not say its pattern, and this one is not known (sha256 {sha256}): give one",
                path.display()
            )));
        };
        let specials = specials.unwrap_or_else(|| {
            let tokens = known.map_or(&[][..], |known| known.special_tokens);
            tokens.iter().map(|&(string, id)| (string.to_owned(), id)).collect()
        });
        parse(file, pattern, specials).map_err(|message| damaged(path, message))
    }

    /// The bytes of a `.tiktoken` file; the pattern and the special tokens are not in it.
    ///
    /// [`Error::Setting`] when tiktoken would give other ids: for characters as base symbols, and when the merges are
    /// not those that the order of the ids stands for.
    pub fn to_tiktoken(&self) -> Result<Vec<u8>> {
        if !matches!(self.base, Base::Bytes(_)) {
            return Err(Error::Setting(
                "a .tiktoken file holds tokens over bytes, and these are over characters".to_owned(),
            ));
        }
        let (merges, n_unreached) = merges_of(&self.tokens);
        if merges != self.merges {
            return Err(Error::Setting(
                "a .tiktoken file has no merges but the order of its ids, and these have another".to_owned(),
            ));
        }
        if n_unreached > 0 && !self.ignore_merges {
            return Err(Error::Setting(format!(
                "tiktoken would use {n_unreached} tokens that the merges of this vocabulary never make"
            )));
        }
        let mut file = Vec::new();
        for (id, token) in self.tokens.iter() {
            file.extend_from_slice(format!("{} {id}\n", STANDARD.encode(token)).as_bytes());
        }
        Ok(file)
    }
}

fn parse(file: &[u8], pattern: Pattern, specials: Vec<(String, TokenId)>) -> std::result::Result<Vocabulary, String> {
    // A line is a token: three bytes of four, a rank, a line end.
    let n_lines = memchr::memchr_iter(b'\n', file).count();
    let mut tokens = TokenTable::with_capacity(n_lines, file.len() / 2);
    let mut token = Vec::new();
    for (number, line) in (1..).zip(file.split(|&byte| byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let rank = parse_line(line, &mut token)
            .ok_or_else(|| format!("line {number}: expected base 64, a space and a rank, found {}", show(line)))?;
        tokens.insert(rank, &token).map_err(|message| format!("line {number}: {message}"))?;
    }
    let (merges, _) = merges_of(&tokens);
    let parts = Parts { tokens, over_bytes: true, merges, specials, unknown: None, pattern, ignore_merges: true };
    Vocabulary::assembled(parts)
}

fn parse_line(line: &[u8], token: &mut Vec<u8>) -> Option<TokenId> {
    let space = line.iter().position(|&byte| byte == b' ')?;
    token.clear();
    STANDARD.decode_vec(&line[..space], token).ok()?;
    str::from_utf8(&line[space + 1..]).ok()?.parse().ok()
}

/// The one merge that makes each token, in the order of ids, and the number of tokens that no merge makes.
fn merges_of(tokens: &TokenTable) -> (Vec<Merge>, usize) {
    let mut known = RanksById { pairs: PairTable::with_capacity(tokens.len()) };
    let mut merger = Merger::default();
    let mut parts = Vec::new();
    let mut bytes_to_ids = [NO_RANK; 256];
    for byte in 0..=255 {
        bytes_to_ids[byte as usize] = tokens.id_of(&[byte]).unwrap_or(NO_RANK);
    }
    let mut merges = Vec::with_capacity(tokens.len());
    let mut n_unreached = 0;
    for (result, token) in tokens.iter().filter(|(_, token)| token.len() > 1) {
        let symbols = token.iter().map(|&byte| bytes_to_ids[byte as usize]);
        if symbols.clone().any(|id| id == NO_RANK) {
            n_unreached += 1;
            continue;
        }
        // The pairs known so far have lower ranks. If they lead to two tokens, those of higher ranks had no say.
        parts.clear();
        parts.extend(symbols.clone());
        merger.merge(&mut parts, &known);
        if parts.len() != 2 {
            parts.clear();
            parts.extend(symbols);
            merger.merge(&mut parts, &RanksByBytes { tokens, without: token });
        }
        match parts[..] {
            [left, right] => {
                known.pairs.insert(left, right, result);
                merges.push(Merge { left, right, result });
            }
            _ => n_unreached += 1,
        }
    }
    (merges, n_unreached)
}

/// The pairs found so far, the rank being the id of the result.
struct RanksById {
    pairs: PairTable,
}

impl Ranks for RanksById {
    // Into what is compiled for AVX2: as a call a fifth of loading 200,000 tokens was lost.
    #[inline(always)]
    fn rank(&self, left: TokenId, right: TokenId) -> u32 {
        self.pairs.rank(left, right)
    }

    fn result(&self, rank: u32) -> TokenId {
        rank
    }
}

/// Any two tokens whose joined bytes are a token other than `without`: slow, and needed only for a file in which a
/// token's parts have higher ranks than the token.
struct RanksByBytes<'t> {
    tokens: &'t TokenTable,
    without: &'t [u8],
}

impl Ranks for RanksByBytes<'_> {
    fn rank(&self, left: TokenId, right: TokenId) -> u32 {
        let (Some(left), Some(right)) = (self.tokens.get(left), self.tokens.get(right)) else { return NO_RANK };
        let joined = [left, right].concat();
        if joined == self.without { NO_RANK } else { self.tokens.id_of(&joined).unwrap_or(NO_RANK) }
    }

    fn result(&self, rank: u32) -> TokenId {
        rank
    }
}
