//! Strings in a text file that are not text: the end-of-text tokens between documents, and other special tokens.

use std::ops::Range;

use crate::error::Result;
use crate::special::SpecialTokens;

/// Special tokens of a corpus, by their place in the list given. Leftmost first, and the longest where several begin.
pub struct Markers {
    strings: Vec<String>,
    ends: Vec<bool>,
    tokens: SpecialTokens,
    longest: usize,
}

/// A stretch of a document: text, or the special token of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch<'t> {
    Text(&'t [u8]),
    Special(usize),
}

impl Markers {
    /// `strings` with whether each ends a document.
    pub fn new(strings: Vec<(String, bool)>) -> Result<Self> {
        let longest = strings.iter().map(|(string, _)| string.len()).max().unwrap_or(0);
        let (strings, ends): (Vec<_>, Vec<_>) = strings.into_iter().unzip();
        let numbered = strings.iter().cloned().zip(0..).collect();
        Ok(Self { strings, ends, tokens: SpecialTokens::new(numbered)?, longest })
    }

    pub fn strings(&self) -> &[String] {
        &self.strings
    }

    /// Bytes of the longest one, 0 when there is none.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The first marker at or after `from`: where it stands, its number, and whether it ends a document.
    pub fn find(&self, text: &[u8], from: usize) -> Option<(Range<usize>, usize, bool)> {
        let (range, number) = self.tokens.find(text, from)?;
        Some((range, number as usize, self.ends[number as usize]))
    }

    /// Visits the stretches of a document in order, with where each begins; empty ones are left out. There is nothing to
    /// search for where all markers end documents.
    pub fn stretches<'t>(&self, text: &'t [u8], mut visit: impl FnMut(usize, Stretch<'t>) -> Result<()>) -> Result<()> {
        let may_have_some = self.ends.contains(&false);
        let mut start = 0;
        while may_have_some && let Some((range, number, _)) = self.find(text, start) {
            if start < range.start {
                visit(start, Stretch::Text(&text[start..range.start]))?;
            }
            visit(range.start, Stretch::Special(number))?;
            start = range.end;
        }
        if start < text.len() { visit(start, Stretch::Text(&text[start..])) } else { Ok(()) }
    }
}
