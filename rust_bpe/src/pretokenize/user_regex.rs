//! A user's own regular expression, by the library fancy-regex in Oniguruma's dialect, which tokenizer.json is read in.
//!
//! A match is a pre-token, and so is what lies between two matches; an empty match only cuts. A byte that is not part
//! of valid UTF-8 matches nothing, so it lies between matches. The library counts steps back, so an expression that tries
//! too many ways ends in an error; one that reads far ahead from every place is slow instead.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fancy_regex::{BytesMode, Regex, RegexBuilder};

use super::class::{char_at, whole_char_at};
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
        if source.len() > MAX_REGEX_BYTES {
            return Err(Error::Setting(format!(
                "a pattern of {} bytes is too long: a regular expression has {MAX_REGEX_BYTES} at most",
                source.len()
            )));
        }
        if has_calls(source) {
            return Err(Error::Setting(format!(
                "pattern {} calls a group or itself (\\g, (?R)): expected an expression without calls, which the limit on \
                 steps does not bound",
                shown(source)
            )));
        }
        let regex = RegexBuilder::new(source)
            .oniguruma_mode(true)
            .multi_line(true)
            .bytes_mode(BytesMode::UnicodeBytes)
            .backtrack_limit(MAX_STEPS_BACK)
            .delegate_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| Error::Setting(format!("pattern {} is no regular expression: {error}", shown(source))))?;
        Ok(UserRegex { regex: Arc::new(regex) })
    }

    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// See [`super::Pattern::boundaries`].
    pub fn boundaries(&self, text: &[u8], start: usize, ends: &mut Vec<usize>) -> Result<()> {
        ends.clear();
        let mut last = start;
        let mut search_from = start;
        while last < text.len() && ends.len() < PRETOKEN_BATCH {
            let (from, to) = self.find(text, search_from, last)?.unwrap_or((text.len(), text.len()));
            for end in [from, to] {
                if end > last && ends.len() < PRETOKEN_BATCH {
                    check_length(last, end)?;
                    ends.push(end);
                    last = end;
                }
            }
            search_from = if to > from { to } else { to + char_len(text, to) };
        }
        Ok(())
    }

    /// The first match from `at` on that does not lie inside a character. `last` is where the pre-token began, for errors.
    fn find(&self, text: &[u8], mut at: usize, last: usize) -> Result<Option<(usize, usize)>> {
        while at <= text.len() {
            let given_up = |reason: String| Error::Text {
                position: last as u64,
                message: format!("the pattern {} was given up: {reason}", shown(self.as_str())),
            };
            // fancy-regex 0.20 takes a bad byte for the lead of a character, and may so step behind the end and panic.
            let found = catch_unwind(AssertUnwindSafe(|| self.regex.find_from_pos(text, at)))
                .map_err(|_| given_up("bytes that are not UTF-8 lead it out of the text".into()))?
                .map_err(|error| given_up(error.to_string()))?;
            match found.map(|found| (found.start(), found.end().min(text.len()))) {
                Some((from, to)) if from == to && is_inside_char(text, from) => at = from + 1,
                result => return Ok(result),
            }
        }
        Ok(None)
    }
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

fn char_len(text: &[u8], at: usize) -> usize {
    if at < text.len() { char_at(text, at).len } else { 1 }
}

fn is_inside_char(text: &[u8], at: usize) -> bool {
    (1..=3.min(at)).any(|back| whole_char_at(text, at - back).is_some_and(|char| char.len > back))
}
