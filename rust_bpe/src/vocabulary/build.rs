//! Vocabularies that no file gave: from trained merges, of bytes alone, of characters alone.

use super::{Base, Merge, Vocabulary, check_specials};
use crate::error::{Error, Result};
use crate::pretokenize::Pattern;
use crate::special::SpecialTokens;
use crate::token::{MAX_VOCAB_SIZE, TokenId};
use crate::train::Alphabet;
use crate::vocabulary::table::TokenTable;

/// The special token between documents.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The special token that stands for characters without a token.
pub const UNKNOWN: &str = "<unk>";

/// The special tokens of [`SpecialIds::Front`], which have the ids 0 to 3.
pub const FRONT_TOKENS: [&str; 4] = [UNKNOWN, "<s>", "</s>", "<pad>"];

/// Where special tokens stand among the ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecialIds {
    /// After all others, in the order given.
    #[default]
    End,
    /// `<unk>` 0, `<s>` 1, `</s>` 2, `<pad>` 3, then the base symbols and merges, then further ones.
    Front,
}

impl Vocabulary {
    /// The vocabulary of trained merges: `merges[i]` joins two symbols into symbol `alphabet.len() + i`.
    ///
    /// Ids: the base symbols, with characters `<unk>` after them, the merges, the special tokens; see [`SpecialIds`].
    /// Errors: [`Error::Setting`] for a special token that is also an ordinary one, for characters given twice, for
    /// more than [`MAX_VOCAB_SIZE`] ids and for a merge of symbols that do not exist yet.
    pub fn from_merges(
        alphabet: &Alphabet,
        merges: &[(u32, u32)],
        pattern: Pattern,
        specials: &[String],
        special_ids: SpecialIds,
    ) -> Result<Self> {
        let unknown_after_base = matches!(alphabet, Alphabet::Chars(_)) && special_ids == SpecialIds::End;
        Self::build(alphabet, merges, pattern, specials, special_ids, unknown_after_base)
    }

    /// One token for each byte, no merges: id = byte unless special tokens stand in front.
    pub fn byte(specials: &[String], special_ids: SpecialIds) -> Result<Self> {
        Self::build(&Alphabet::Bytes, &[], Pattern::None, specials, special_ids, false)
    }

    /// One token for each of `chars`, no merges. Another character is `<unk>` where that is a special token, else an
    /// error when it is encoded.
    pub fn chars(chars: Vec<char>, specials: &[String], special_ids: SpecialIds) -> Result<Self> {
        Self::build(&Alphabet::Chars(chars), &[], Pattern::None, specials, special_ids, false)
    }

    fn build(
        alphabet: &Alphabet,
        merges: &[(u32, u32)],
        pattern: Pattern,
        specials: &[String],
        special_ids: SpecialIds,
        unknown_after_base: bool,
    ) -> Result<Self> {
        let front: &[&str] = if special_ids == SpecialIds::Front { &FRONT_TOKENS } else { &[] };
        let n_symbols = alphabet.len() + merges.len();
        if front.len() + n_symbols + 1 + specials.len() > MAX_VOCAB_SIZE {
            let n_ids = n_symbols + specials.len();
            return Err(Error::Setting(format!("{n_ids} ids are too many: {MAX_VOCAB_SIZE} are possible")));
        }
        let n_base = alphabet.len();
        let first_base = front.len();
        let first_merge = first_base + n_base + usize::from(unknown_after_base);
        let id_of = |symbol: usize| {
            (if symbol < n_base { first_base + symbol } else { first_merge + symbol - n_base }) as TokenId
        };

        let mut placed: Vec<(String, TokenId)> = front.iter().map(|s| s.to_string()).zip(0..).collect();
        if unknown_after_base {
            placed.push((UNKNOWN.to_owned(), (first_base + n_base) as TokenId));
        }
        for string in specials {
            // `<unk>` and its like may be asked for by name where they have a place already.
            if !placed[..front.len() + usize::from(unknown_after_base)].iter().any(|(own, _)| own == string) {
                let n_behind = placed.len() - front.len() - usize::from(unknown_after_base);
                placed.push((string.clone(), (first_merge + merges.len() + n_behind) as TokenId));
            }
        }

        let tokens = base_tokens(alphabet, merges.len(), id_of).map_err(Error::Setting)?;
        let (tokens, merges) = merged_tokens(tokens, merges, n_base, id_of).map_err(Error::Setting)?;
        let over_bytes = matches!(alphabet, Alphabet::Bytes);
        check_specials(&tokens, over_bytes, &placed).map_err(Error::Setting)?;
        let base = if over_bytes { Base::bytes(&tokens) } else { Base::chars(&tokens) }.map_err(Error::Setting)?;
        let specials = SpecialTokens::new(placed)?;
        let unknown = if over_bytes { None } else { specials.id_of(UNKNOWN) };
        Ok(Self { tokens, base, merges, specials, unknown, pattern, ignore_merges: false })
    }
}

/// The base symbols, with room for so many merges.
fn base_tokens(
    alphabet: &Alphabet,
    n_merges: usize,
    id_of: impl Fn(usize) -> TokenId,
) -> std::result::Result<TokenTable, String> {
    const USUAL_TOKEN_BYTES: usize = 8; // 6 to 8 where 32,000 to 128,000 ids are trained
    let n_tokens = alphabet.len() + n_merges;
    let mut tokens = TokenTable::with_capacity(n_tokens, n_tokens * USUAL_TOKEN_BYTES);
    match alphabet {
        Alphabet::Bytes => {
            for byte in 0..=255u8 {
                tokens.insert(id_of(byte.into()), &[byte])?;
            }
        }
        Alphabet::Chars(chars) => {
            for (symbol, character) in chars.iter().enumerate() {
                tokens.insert(id_of(symbol), character.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
        }
    }
    Ok(tokens)
}

fn merged_tokens(
    mut tokens: TokenTable,
    merges: &[(u32, u32)],
    n_base: usize,
    id_of: impl Fn(usize) -> TokenId,
) -> std::result::Result<(TokenTable, Vec<Merge>), String> {
    let mut joined = Vec::new();
    let mut out = Vec::with_capacity(merges.len());
    for (rank, &(left, right)) in merges.iter().enumerate() {
        let symbol = n_base + rank;
        if left.max(right) as usize >= symbol {
            return Err(format!("merge {rank} joins symbols {left} and {right}, but only {symbol} exist by then"));
        }
        let merge = Merge { left: id_of(left as usize), right: id_of(right as usize), result: id_of(symbol) };
        joined.clear();
        for part in [merge.left, merge.right] {
            joined.extend_from_slice(tokens.get(part).unwrap_or_default());
        }
        tokens.insert(merge.result, &joined)?;
        out.push(merge);
    }
    Ok((tokens, out))
}
