//! Encoding by the rule itself: look at all pairs, merge the leftmost of the lowest rank, begin again.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::special::Special;
use crate::token::TokenId;
use crate::vocabulary::{Base, Vocabulary};

/// (left, right) -> (rank, result).
pub type MergeMap = HashMap<(TokenId, TokenId), (u32, TokenId)>;

/// The tokens of a sequence of symbols.
pub fn merge(symbols: &[TokenId], merges: &MergeMap) -> Vec<TokenId> {
    let mut tokens = symbols.to_vec();
    loop {
        let pairs = tokens.windows(2).enumerate();
        let known =
            pairs.filter_map(|(at, pair)| merges.get(&(pair[0], pair[1])).map(|&(rank, result)| (rank, at, result)));
        let Some((_, at, result)) = known.min() else { return tokens };
        tokens.splice(at..at + 2, [result]);
    }
}

/// What [`crate::encode::Encoder`] must give for a text.
pub fn encode(vocabulary: &Vocabulary, text: &[u8], special: Special) -> Result<Vec<TokenId>> {
    let merges: MergeMap = vocabulary
        .merges()
        .iter()
        .zip(0..)
        .map(|(merge, rank)| ((merge.left, merge.right), (rank, merge.result)))
        .collect();
    let mut tokens = Vec::new();
    let mut start = 0;
    for at in 0..text.len() {
        if at < start || special == Special::Text {
            continue;
        }
        let here = vocabulary.special_tokens().iter().filter(|(string, _)| text[at..].starts_with(string.as_bytes()));
        let Some((string, id)) = here.max_by_key(|(string, _)| string.len()) else { continue };
        if special == Special::Error {
            return Err(Error::Text { position: at as u64, message: format!("special token {string:?}") });
        }
        ordinary(vocabulary, &merges, &text[start..at], &mut tokens)?;
        tokens.push(id);
        start = at + string.len();
    }
    ordinary(vocabulary, &merges, &text[start..], &mut tokens)?;
    Ok(tokens)
}

fn ordinary(vocabulary: &Vocabulary, merges: &MergeMap, text: &[u8], tokens: &mut Vec<TokenId>) -> Result<()> {
    let mut outcome = Ok(());
    vocabulary.pattern().split(text, |pretoken| {
        if outcome.is_err() {
            return;
        }
        match vocabulary.id_of(pretoken).filter(|_| vocabulary.ignore_merges()) {
            Some(id) => tokens.push(id),
            None => match symbols(vocabulary, pretoken) {
                Ok(symbols) => tokens.extend(merge(&symbols, merges)),
                Err(error) => outcome = Err(error),
            },
        }
    })?;
    outcome
}

fn symbols(vocabulary: &Vocabulary, pretoken: &[u8]) -> Result<Vec<TokenId>> {
    let refused = |message: &str| Error::Text { position: 0, message: message.to_owned() };
    match vocabulary.base() {
        Base::Bytes(ids) => Ok(pretoken.iter().map(|&byte| ids[byte as usize]).collect()),
        Base::Chars(chars) => {
            let text = str::from_utf8(pretoken).map_err(|_| refused("not UTF-8"))?;
            let id_of = |c| chars.iter().find(|(own, _)| *own == c).map(|&(_, id)| id).or(vocabulary.unknown_id());
            text.chars().map(|c| id_of(c).ok_or_else(|| refused("unknown character"))).collect()
        }
    }
}
