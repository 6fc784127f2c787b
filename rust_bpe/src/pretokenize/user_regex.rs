//! A user's own regular expression, by the library fancy-regex in Oniguruma's dialect, which tokenizer.json is read in.
//!
//! A match is a pre-token, and so is what lies between two matches; an empty match only cuts. The expression sees U+FFFD
//! in place of each byte that is not part of valid UTF-8, in a copy of the text. The library counts steps back, so an
//! expression that tries too many ways ends in an error; one that reads far ahead from every place is slow instead.

use std::borrow::Cow;
use std::sync::Arc;

use fancy_regex::{Regex, RegexBuilder};

use super::class::{char_at, whole_char_at};
use super::dialect::for_library;
use super::{PRETOKEN_BATCH, check_length};
use crate::error::{Error, Result};

/// The longest expression: a longer one could take minutes to compile.
const MAX_REGEX_BYTES: usize = 64 << 10;
/// Steps back that one search may take before it is given up: a search of an ordinary pattern takes none or a few.
const MAX_STEPS_BACK: usize = 1_000_000;
/// The memory of one compiled part of an expression.
const MAX_COMPILED_BYTES: usize = 10 << 20;

/// A compiled expression; equal to another when the text of both is.
#[derive(Clone, Debug)]
pub struct UserRegex {
    source: Arc<str>,
    regex: Arc<Regex>,
}

impl PartialEq for UserRegex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl UserRegex {
    /// Compiles the expression. [`Error::Setting`] says what is wrong with it.
    pub fn new(source: &str) -> Result<Self> {
        if has_calls(source) {
            return Err(Error::Setting(format!(
                "pattern {} calls a group or itself (\\g, (?R)): expected an expression without calls, which the limit on \
                 steps does not bound",
                shown(source)
            )));
        }
        let written = for_library(source).map_err(|set| {
            Error::Setting(format!(
                "pattern {} has the set {set:?}, which libraries read differently: expected its characters, as \\p{{L}} or \\w",
                shown(source)
            ))
        })?;
        if written.len() > MAX_REGEX_BYTES {
            return Err(Error::Setting(format!(
                "a pattern of {} bytes is too long: a regular expression, its sets written out, has {MAX_REGEX_BYTES} at most",
                written.len()
            )));
        }
        let regex = RegexBuilder::new(&written)
            .oniguruma_mode(true)
            .multi_line(true)
            .backtrack_limit(MAX_STEPS_BACK)
            .delegate_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| Error::Setting(format!("pattern {} is no regular expression: {error}", shown(source))))?;
        Ok(UserRegex { source: source.into(), regex: Arc::new(regex) })
    }

    /// The expression compiled, for the slow twin.
    #[doc(hidden)]
    pub fn library(&self) -> &Regex {
        &self.regex
    }

    pub fn as_str(&self) -> &str {
        &self.source
    }

    pub(super) fn pieces<'s>(&'s self, text: &'s [u8]) -> Pieces<'s> {
        let seen = seen(text);
        Pieces { regex: self, text, seen, search_from: 0, end: 0, seen_end: 0 }
    }

    /// The first match from `at` on.
    fn find(&self, seen: &str, at: usize) -> std::result::Result<Option<(usize, usize)>, String> {
        let found = self.regex.find_from_pos(seen, at);
        let given_up = |error| format!("the pattern {} was given up: {error}", shown(self.as_str()));
        Ok(found.map_err(given_up)?.map(|found| (found.start(), found.end())))
    }
}

/// The pre-tokens of one text, in order.
#[derive(Debug)]
pub(super) struct Pieces<'s> {
    regex: &'s UserRegex,
    text: &'s [u8],
    /// The text as the expression sees it.
    seen: Cow<'s, str>,
    /// Where in `seen` the next match is looked for.
    search_from: usize,
    /// Where the last pre-token ended, in `text` and in `seen`.
    end: usize,
    seen_end: usize,
}

impl Pieces<'_> {
    /// See [`super::Splitter::next`].
    pub(super) fn next(&mut self, ends: &mut Vec<usize>) -> Result<()> {
        ends.clear();
        let len = self.seen.len();
        while self.seen_end < len && ends.len() + 2 <= PRETOKEN_BATCH {
            let found = self.regex.find(&self.seen, self.search_from);
            let (from, to) =
                found.map_err(|message| Error::Text { position: self.end as u64, message })?.unwrap_or((len, len));
            for seen_end in [from, to] {
                if seen_end > self.seen_end {
                    let start = self.end;
                    self.advance(seen_end);
                    check_length(start, self.end)?;
                    ends.push(self.end);
                }
            }
            self.search_from = if to > from || to == len { to } else { to + char_at(self.seen.as_bytes(), to).len };
        }
        Ok(())
    }

    /// Moves both ends on, to `seen_end` in what is seen.
    fn advance(&mut self, seen_end: usize) {
        if let Cow::Borrowed(_) = self.seen {
            (self.end, self.seen_end) = (seen_end, seen_end);
        }
        while self.seen_end < seen_end {
            let char = whole_char_at(self.text, self.end);
            self.end += char.map_or(1, |char| char.len);
            self.seen_end += char.map_or(char::REPLACEMENT_CHARACTER.len_utf8(), |char| char.len);
        }
    }
}

/// The text with U+FFFD in place of each bad byte.
fn seen(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(text) {
        return Cow::Borrowed(text);
    }
    let mut seen = String::with_capacity(text.len() + text.len() / 8);
    for chunk in text.utf8_chunks() {
        seen.push_str(chunk.valid());
        seen.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(seen)
}

/// Whether an expression may call one of its groups, as `\g<1>`, `(?1)`, `(?&name)` and `(?R)` do: fancy-regex 0.20 keeps every
/// call on a stack, gigabytes of it when an expression calls itself.
fn has_calls(source: &str) -> bool {
    let mut rest = source;
    while let Some(place) = rest.find(['\\', '(']) {
        let (here, behind) = rest[place..].split_at(1);
        let mut next = behind.chars();
        if here == "\\" {
            if next.next() == Some('g') {
                return true;
            }
        } else if next.next() == Some('?') {
            match next.next() {
                Some('R' | '&' | '0'..='9') => return true,
                Some('+' | '-') if next.next().is_some_and(|c| c.is_ascii_digit()) => return true,
                Some('P') if next.next() == Some('>') => return true,
                _ => next = behind.chars(),
            }
        } else {
            next = behind.chars();
        }
        rest = next.as_str();
    }
    false
}

/// The expression for a message of one line.
fn shown(source: &str) -> String {
    let start: String = source.chars().take(60).collect();
    if start.len() < source.len() { format!("{start:?}...") } else { format!("{start:?}") }
}
