//! Special tokens in text: the leftmost first, and of those that begin at one place the longest.

use std::ops::Range;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use crate::error::{Error, Result};
use crate::token::TokenId;

/// What an encoder does where the text holds a special token's string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Special {
    /// An error with the position: text from strangers must not speak for the program.
    #[default]
    Error,
    /// The token's id.
    Allow,
    /// Plain text, encoded as if the string meant nothing.
    Text,
}

/// The special tokens of a vocabulary, and a matcher for all of them at once.
#[derive(Clone, Debug, Default)]
pub struct SpecialTokens {
    tokens: Vec<(String, TokenId)>,
    matcher: Option<AhoCorasick>,
    longest_bytes: usize,
}

impl SpecialTokens {
    /// Keeps the order given. An empty string, a string given twice or an id given twice is an error.
    pub fn new(tokens: Vec<(String, TokenId)>) -> Result<Self> {
        let mut strings: Vec<&str> = tokens.iter().map(|(string, _)| string.as_str()).collect();
        strings.sort_unstable();
        if strings.first() == Some(&"") {
            return Err(Error::Setting("a special token is empty: give it at least one character".to_owned()));
        }
        if let Some(pair) = strings.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Setting(format!("special token {:?} is given twice", pair[0])));
        }
        let mut ids: Vec<TokenId> = tokens.iter().map(|&(_, id)| id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Setting(format!("id {} is given to two special tokens", pair[0])));
        }
        let longest_bytes = tokens.iter().map(|(string, _)| string.len()).max().unwrap_or(0);
        let matcher = if tokens.is_empty() { None } else { Some(matcher_for(&tokens)?) };
        Ok(Self { tokens, matcher, longest_bytes })
    }

    /// The first special token at or after `from`, and where it stands in `text`.
    pub fn find(&self, text: &[u8], from: usize) -> Option<(Range<usize>, TokenId)> {
        let found = self.matcher.as_ref()?.find(Input::new(text).range(from..))?;
        Some((found.range(), self.tokens[found.pattern().as_usize()].1))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, TokenId)> {
        self.tokens.iter().map(|(string, id)| (string.as_str(), *id))
    }

    pub fn id_of(&self, string: &str) -> Option<TokenId> {
        self.iter().find(|&(own, _)| own == string).map(|(_, id)| id)
    }

    pub fn string_of(&self, id: TokenId) -> Option<&str> {
        self.iter().find(|&(_, own)| own == id).map(|(string, _)| string)
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Length of the longest string: a stream holds back one byte less, lest it cut a special token.
    pub fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }
}

fn matcher_for(tokens: &[(String, TokenId)]) -> Result<AhoCorasick> {
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(tokens.iter().map(|(string, _)| string))
        .map_err(|error| Error::Setting(format!("special tokens: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special(strings: &[&str]) -> SpecialTokens {
        SpecialTokens::new(strings.iter().zip(100..).map(|(s, id)| (s.to_string(), id)).collect()).unwrap()
    }

    #[test]
    fn the_longest_of_those_that_begin_at_one_place_wins() {
        let tokens = special(&["<|a", "<|a|>", "<|a|><|b|>"]);
        assert_eq!(tokens.find(b"x<|a|><|b|>", 0), Some((1..11, 102)));
        assert_eq!(tokens.find(b"x<|a|><|c|>", 0), Some((1..6, 101)));
        assert_eq!(tokens.find(b"x<|ab", 0), Some((1..4, 100)));
    }

    #[test]
    fn the_leftmost_wins_over_a_longer_one_that_overlaps_it() {
        let tokens = special(&["abc", "bcdefg"]);
        assert_eq!(tokens.find(b"abcdefg", 0), Some((0..3, 100)));
        assert_eq!(tokens.find(b"abcdefg", 1), Some((1..7, 101)));
    }

    #[test]
    fn empty_and_repeated_tokens_are_refused() {
        for tokens in [vec![("", 1)], vec![("a", 1), ("a", 2)], vec![("a", 1), ("b", 1)]] {
            let tokens = tokens.into_iter().map(|(s, id)| (s.to_owned(), id)).collect();
            assert!(matches!(SpecialTokens::new(tokens), Err(Error::Setting(_))));
        }
        assert_eq!(SpecialTokens::default().find(b"anything", 0), None);
    }
}
