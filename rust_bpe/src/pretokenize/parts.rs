//! What several patterns share: contractions and runs of white space.

use super::class::{SPACE, last_char_start, run_end};

/// The length of the contraction that `text` begins with, apostrophe included: `'(?:[sdmt]|ll|ve|re)`.
///
/// With `fold` it is `(?i:...)`, for which U+017F (long s) is an s too; no other character beyond ASCII folds into these.
#[inline(always)]
pub fn contraction(text: &[u8], fold: bool) -> Option<usize> {
    let (&b'\'', rest) = text.split_first()? else { return None };
    let case = if fold { 0x20 } else { 0 };
    let &first = rest.first()?;
    match first | case {
        b's' | b'd' | b'm' | b't' => return Some(2),
        b'l' | b'v' | b'r' => {}
        _ if fold && rest.starts_with("\u{17F}".as_bytes()) => return Some(3),
        _ => return None,
    }
    match (first | case, *rest.get(1)? | case) {
        (b'l', b'l') | (b'v', b'e') | (b'r', b'e') => Some(3),
        _ => None,
    }
}

/// The end of the white space from `at` on that is one pre-token by `\s+(?!\S)|\s+`: all of it at the end of the text,
/// else all but the last character, else that one.
#[inline(always)]
pub fn space_before_word(text: &[u8], at: usize) -> usize {
    before_word(text, at, run_end(text, at, SPACE))
}

/// The same by `\s*[\r\n]+|\s+(?!\S)|\s+`: up to the last line end of the run, if it has one.
#[inline(always)]
pub fn space_by_lines(text: &[u8], at: usize) -> usize {
    let end = run_end(text, at, SPACE);
    match text[at..end].iter().rposition(|&b| is_line_end(b)) {
        Some(last) => at + last + 1,
        None => before_word(text, at, end),
    }
}

#[inline(always)]
pub fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// Skips `more` bytes.
#[inline(always)]
pub fn bytes_end(text: &[u8], mut at: usize, more: impl Fn(u8) -> bool) -> usize {
    while at < text.len() && more(text[at]) {
        at += 1;
    }
    at
}

fn before_word(text: &[u8], at: usize, end: usize) -> usize {
    if end == text.len() {
        return end;
    }
    let last = last_char_start(text, end);
    if last > at { last } else { end }
}
