//! Where a text falls into pre-tokens, the stretches inside which pairs are merged.
//!
//! A named pattern is a scanner written by hand, equal to its regular expression over all of Unicode 16 (a test says
//! so); any other regular expression goes through a library. Pre-tokens partition the text. A byte that is not part of
//! valid UTF-8 is split as U+FFFD would be: a character of its own, neither letter nor number nor white space.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
mod cl100k;
mod class;
mod cut;
mod dialect;
mod engine;
mod gpt2;
mod lines;
mod masks;
mod o200k;
mod parts;
mod portable;
mod published;
mod splitter;
mod unicode_tables;
mod user_regex;
mod whitespace;

#[cfg(test)]
mod tests;

pub use splitter::Splitter;
pub use unicode_tables::UNICODE_VERSION;
pub use user_regex::UserRegex;

pub use engine::Engine;

use crate::error::{Error, Result};
use crate::token::MAX_PRETOKEN_BYTES;

/// How many ends [`Splitter::next`] gives at most: few enough to stay in the first cache.
pub const PRETOKEN_BATCH: usize = 512;

/// The rule by which a text is split into pre-tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// GPT-2's, also r50k's and p50k's.
    Gpt2,
    /// cl100k's as tiktoken has it since 0.6: white space at the end of the text is one pre-token.
    Cl100k,
    /// cl100k's first form, which Llama 3 and the files of Hugging Face have.
    Llama3,
    /// o200k's.
    O200k,
    /// Cuts at white space only.
    Whitespace,
    /// The whole text is one pre-token.
    None,
    Regex(UserRegex),
}

impl Pattern {
    /// The pattern of a name (`gpt2`, `cl100k`, `llama3`, `o200k`, `whitespace`, `none`), or of a regular expression: one
    /// that was published for a named pattern is that pattern.
    ///
    /// [`Error::Setting`] when it is neither.
    pub fn parse(name_or_regex: &str) -> Result<Pattern> {
        match NAMED.iter().find(|pattern| pattern.name() == name_or_regex) {
            Some(pattern) => Ok(pattern.clone()),
            None => match published::known(name_or_regex) {
                Some(pattern) => Ok(pattern),
                None => UserRegex::new(name_or_regex).map(Pattern::Regex),
            },
        }
    }

    /// The name that [`Pattern::parse`] knows, `regex` for a user's expression.
    pub fn name(&self) -> &str {
        match self {
            Pattern::Gpt2 => "gpt2",
            Pattern::Cl100k => "cl100k",
            Pattern::Llama3 => "llama3",
            Pattern::O200k => "o200k",
            Pattern::Whitespace => "whitespace",
            Pattern::None => "none",
            Pattern::Regex(_) => "regex",
        }
    }

    /// The regular expression, written so that Oniguruma and Rust's engines read it alike; None for `none`.
    pub fn regex(&self) -> Option<&str> {
        match self {
            Pattern::Gpt2 => Some(published::GPT2),
            Pattern::Cl100k => Some(published::CL100K),
            Pattern::Llama3 => Some(published::LLAMA3),
            Pattern::O200k => Some(published::O200K),
            Pattern::Whitespace => Some(published::WHITESPACE),
            Pattern::None => None,
            Pattern::Regex(regex) => Some(regex.as_str()),
        }
    }

    /// The pre-tokens of `text`, a batch at a time.
    pub fn splitter<'s>(&'s self, text: &'s [u8]) -> Splitter<'s> {
        self.splitter_by(Engine::best(), text)
    }

    /// The same by a certain engine: all give the same ends, batches apart.
    #[doc(hidden)]
    pub fn splitter_by<'s>(&'s self, engine: Engine, text: &'s [u8]) -> Splitter<'s> {
        Splitter::new(self, engine, text)
    }

    /// Calls `visit` for every pre-token of `text` in order.
    pub fn split<'t>(&self, text: &'t [u8], mut visit: impl FnMut(&'t [u8])) -> Result<()> {
        let mut ends = Vec::with_capacity(PRETOKEN_BATCH);
        let mut splitter = self.splitter(text);
        let mut start = 0;
        while start < text.len() {
            splitter.next(start, &mut ends)?;
            for &end in &ends {
                visit(&text[start..end]);
                start = end;
            }
        }
        Ok(())
    }

    /// The last place inside `text` where a cut changes nothing: it is a boundary whatever stands before `text` and
    /// whatever follows it, and both sides split alone as they do together.
    ///
    /// None when there is no such place, and always for `none` and a user's expression.
    pub fn safe_cut(&self, text: &[u8]) -> Option<usize> {
        match self {
            Pattern::Gpt2 => cut::last_cut(text, cut::gpt2),
            Pattern::Cl100k | Pattern::Llama3 => cut::last_cut(text, cut::cl100k),
            Pattern::O200k => cut::last_cut(text, cut::o200k),
            Pattern::Whitespace => cut::last_cut(text, cut::whitespace),
            Pattern::None | Pattern::Regex(_) => None,
        }
    }
}

const NAMED: [Pattern; 6] =
    [Pattern::Gpt2, Pattern::Cl100k, Pattern::Llama3, Pattern::O200k, Pattern::Whitespace, Pattern::None];

#[inline(always)]
fn check_length(start: usize, end: usize) -> Result<()> {
    if end - start > MAX_PRETOKEN_BYTES { Err(Error::PreTokenTooLong { position: start as u64 }) } else { Ok(()) }
}
