//! What a tokenizer is: tokens by id, merges by rank, special tokens, a pattern. A file per file format.

mod build;
mod byte_level;
mod gpt2;
mod huggingface;
mod huggingface_parts;
mod huggingface_write;
mod json;
mod learn;
mod reach;
mod table;
mod tiktoken;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustc_hash::FxHashSet;
use sha2::{Digest, Sha256};

pub use build::{END_OF_TEXT, FRONT_TOKENS, SpecialIds, UNKNOWN};
pub use learn::{LearnOptions, Learner};
pub use tiktoken::{KNOWN, Known};

use crate::error::{Error, Result};
pub use crate::merge::Merge;
use crate::pretokenize::Pattern;
use crate::special::SpecialTokens;
use crate::token::{Dtype, MAX_VOCAB_SIZE, TokenId};
use table::{TokenTable, show};

/// A vocabulary file longer than this is refused unread; the largest published ones have 35 MB.
pub const MAX_VOCABULARY_FILE_BYTES: u64 = 256 << 20;

/// The symbols that a pre-token consists of before the first merge.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// The id of each byte.
    Bytes(Box<[TokenId; 256]>),
    /// The id of each character, sorted by character.
    Chars(Vec<(char, TokenId)>),
}

/// Everything that encoding and decoding need, immutable and checked.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// The ordinary tokens; the special ones stand in `specials` alone.
    tokens: TokenTable,
    base: Base,
    merges: Vec<Merge>,
    specials: SpecialTokens,
    unknown: Option<TokenId>,
    pattern: Pattern,
    ignore_merges: bool,
}

/// What a reader found in a file, not yet checked.
struct Parts {
    tokens: TokenTable,
    over_bytes: bool,
    merges: Vec<Merge>,
    specials: Vec<(String, TokenId)>,
    unknown: Option<TokenId>,
    pattern: Pattern,
    ignore_merges: bool,
}

impl Vocabulary {
    /// The string of a token, a special one's included; None when no token has this id.
    pub fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.tokens.get(id).or_else(|| self.specials.string_of(id).map(str::as_bytes))
    }

    /// The id of an ordinary token.
    pub fn id_of(&self, token: &[u8]) -> Option<TokenId> {
        self.tokens.id_of(token)
    }

    /// Calls what [`Vocabulary::id_of`] reads first into the caches.
    pub(crate) fn prefetch(&self, token: &[u8]) {
        self.tokens.prefetch(token);
    }

    /// The ordinary tokens in the order of their ids.
    pub fn tokens(&self) -> impl Iterator<Item = (TokenId, &[u8])> {
        self.tokens.iter()
    }

    /// Number of tokens, special ones included, holes not.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len() + self.specials.len()
    }

    /// The largest id, special tokens included.
    pub fn largest_id(&self) -> TokenId {
        let special = self.specials.iter().map(|(_, id)| id).max().unwrap_or(0);
        special.max((self.tokens.n_ids().max(1) - 1) as TokenId)
    }

    /// The largest id + 1: rows of an embedding.
    pub fn vocab_size(&self) -> usize {
        self.largest_id() as usize + 1
    }

    pub fn dtype(&self) -> Dtype {
        Dtype::for_largest_id(self.largest_id())
    }

    pub fn base(&self) -> &Base {
        &self.base
    }

    /// By rank.
    pub fn merges(&self) -> &[Merge] {
        &self.merges
    }

    /// The id of each symbol of [`Vocabulary::from_merges`]: the base in the order of its alphabet
    /// (of characters that were sorted), then the merges.
    pub(crate) fn ids_of_symbols(&self) -> Vec<TokenId> {
        let base: Vec<TokenId> = match &self.base {
            Base::Bytes(ids) => ids.to_vec(),
            Base::Chars(chars) => chars.iter().map(|&(_, id)| id).collect(),
        };
        base.into_iter().chain(self.merges.iter().map(|merge| merge.result)).collect()
    }

    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.specials
    }

    /// What a character that has no token becomes; None makes it an error.
    pub fn unknown_id(&self) -> Option<TokenId> {
        self.unknown
    }

    /// `<|endoftext|>`, else `</s>`.
    pub fn end_of_text_id(&self) -> Option<TokenId> {
        self.specials.id_of(END_OF_TEXT).or_else(|| self.specials.id_of(FRONT_TOKENS[2]))
    }

    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Whether a pre-token that is a token stays whole even where merges would not make it.
    pub fn ignore_merges(&self) -> bool {
        self.ignore_merges
    }

    /// The first of the longest tokens, special ones left out.
    pub fn longest_token(&self) -> (TokenId, &[u8]) {
        let longest = self.tokens.iter().reduce(|best, next| if next.1.len() > best.1.len() { next } else { best });
        longest.unwrap_or((0, b""))
    }

    /// Bytes of each token by id; 0 for special tokens, which stand for no text, and for holes.
    pub fn token_lengths(&self) -> Vec<u32> {
        let mut lengths = vec![0; self.vocab_size()];
        for (id, token) in self.tokens.iter() {
            lengths[id as usize] = token.len() as u32;
        }
        lengths
    }

    /// SHA-256 of the bytes of `tokenizer.json`, in hexadecimal: what a dataset and a run know it by.
    pub fn sha256(&self) -> String {
        Sha256::digest(self.to_json()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn checked(parts: Parts) -> std::result::Result<Self, String> {
        check_merges(&parts.tokens, &parts.merges)?;
        Self::assembled(parts)
    }

    /// The same for merges that cannot be wrong.
    fn assembled(parts: Parts) -> std::result::Result<Self, String> {
        let Parts { tokens, over_bytes, merges, specials, unknown, pattern, ignore_merges } = parts;
        let base = if over_bytes { Base::bytes(&tokens)? } else { Base::chars(&tokens)? };
        check_specials(&tokens, over_bytes, &specials)?;
        let specials = SpecialTokens::new(specials).map_err(|error| error.to_string())?;
        Ok(Self { tokens, base, merges, specials, unknown, pattern, ignore_merges })
    }
}

impl Base {
    fn bytes(tokens: &TokenTable) -> std::result::Result<Self, String> {
        let mut ids = Box::new([0; 256]);
        for byte in 0..=255u8 {
            let id = tokens.id_of(&[byte]);
            ids[byte as usize] = id.ok_or_else(|| format!("byte 0x{byte:02x} has no token: all 256 are needed"))?;
        }
        Ok(Base::Bytes(ids))
    }

    fn chars(tokens: &TokenTable) -> std::result::Result<Self, String> {
        let mut chars = Vec::new();
        for (id, token) in tokens.iter() {
            let text = str::from_utf8(token).map_err(|_| format!("token {} is not UTF-8", show(token)))?;
            let mut characters = text.chars();
            if let (Some(character), None) = (characters.next(), characters.next()) {
                chars.push((character, id));
            }
        }
        if chars.is_empty() {
            return Err("no token is a single character".to_owned());
        }
        chars.sort_unstable();
        Ok(Base::Chars(chars))
    }
}

/// A special token must be written so that no ordinary token is written the same, or files would confuse them.
fn check_specials(
    tokens: &TokenTable,
    over_bytes: bool,
    specials: &[(String, TokenId)],
) -> std::result::Result<(), String> {
    let mut bytes = Vec::new();
    for (string, id) in specials {
        if *id as usize >= MAX_VOCAB_SIZE {
            return Err(format!(
                "id {id} of special token {string:?} is too large: ids go up to {}",
                MAX_VOCAB_SIZE - 1
            ));
        }
        if let Some(token) = tokens.get(*id) {
            return Err(format!("id {id} is given to both special token {string:?} and {}", show(token)));
        }
        let written_as = if !over_bytes {
            Some(string.as_bytes())
        } else {
            byte_level::read(string, &mut bytes).ok().map(|()| bytes.as_slice())
        };
        if let Some(other) = written_as.and_then(|token| tokens.id_of(token)) {
            return Err(format!(
                "special token {string:?} is also the ordinary token of id {other}: choose another string for it"
            ));
        }
    }
    Ok(())
}

fn check_merges(tokens: &TokenTable, merges: &[Merge]) -> std::result::Result<(), String> {
    if merges.len() > MAX_VOCAB_SIZE {
        return Err(format!("{} merges are too many: {MAX_VOCAB_SIZE} are possible", merges.len()));
    }
    let mut pairs = FxHashSet::with_capacity_and_hasher(merges.len(), Default::default());
    for (rank, merge) in merges.iter().enumerate() {
        let string = |id| tokens.get(id).ok_or_else(|| format!("merge {rank} names id {id}, which no token has"));
        let (left, right, result) = (string(merge.left)?, string(merge.right)?, string(merge.result)?);
        if result.len() != left.len() + right.len() || !result.starts_with(left) || !result.ends_with(right) {
            return Err(format!("merge {rank} of {} and {} makes {}", show(left), show(right), show(result)));
        }
        if !pairs.insert((merge.left, merge.right)) {
            return Err(format!("merge {rank} of {} and {} stands there twice", show(left), show(right)));
        }
    }
    Ok(())
}

/// Reads a whole file, refusing one too large to be a vocabulary before anything is allocated for it.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let too_many =
        |size: u64| damaged(path, format!("{size} bytes are too many for a vocabulary ({MAX_VOCABULARY_FILE_BYTES})"));
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size > MAX_VOCABULARY_FILE_BYTES {
        return Err(too_many(size));
    }
    // A pipe or a device does not tell its size.
    let mut bytes = Vec::with_capacity(size as usize + 1);
    let n_bytes = file.take(MAX_VOCABULARY_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)? as u64;
    if n_bytes > MAX_VOCABULARY_FILE_BYTES { Err(too_many(n_bytes)) } else { Ok(bytes) }
}

fn damaged(path: &Path, message: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), message: message.into() }
}
