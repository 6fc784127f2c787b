//! Places where a text may be cut without changing its pre-tokens, whatever stands before and after it.
//!
//! Between two whole characters whose classes force a boundary. The character before is never white space: at the end of
//! a text its run would be one pre-token, before a word it is two. A bad byte at an edge may be half a character, so
//! none is trusted.

use super::class::{Char, LETTER, MARK, NUMBER, OTHER, SPACE, whole_char_at, whole_char_before};
use super::parts::is_line_end;

/// Whether there is always a boundary between two neighbours, given with the last byte of the one before and the first
/// byte of the one after.
pub type Rule = fn(before: (Char, u8), after: (Char, u8)) -> bool;

/// The last place inside `text` that `rule` allows.
pub fn last_cut(text: &[u8], rule: Rule) -> Option<usize> {
    (1..text.len()).rev().find(|&at| {
        let Some(after) = whole_char_at(text, at) else { return false };
        let Some(before) = whole_char_before(text, at) else { return false };
        before.class != SPACE && rule((before, text[at - 1]), (after, text[at]))
    })
}

/// White space after anything else.
pub fn whitespace(_: (Char, u8), (after, _): (Char, u8)) -> bool {
    after.class == SPACE
}

/// Any change of class but an apostrophe before a letter, which may be a contraction.
pub fn gpt2((before, last): (Char, u8), (after, _): (Char, u8)) -> bool {
    let starts_contraction = last == b'\'' && after.class & LETTER != 0;
    kind(before) != kind(after) && !starts_contraction
}

/// Punctuation takes line ends after it and is taken by a letter after it.
pub fn cl100k((before, _): (Char, u8), (after, first): (Char, u8)) -> bool {
    match (kind(before), kind(after)) {
        (OTHER, LETTER) => false,
        (OTHER, SPACE) => !is_line_end(first),
        (a, b) => a != b,
    }
}

/// As cl100k, but marks belong to words too, and so does an apostrophe after a letter.
pub fn o200k(before: (Char, u8), after: (Char, u8)) -> bool {
    let after_letter = before.0.class & LETTER != 0 && (after.0.class == MARK || after.1 == b'\'');
    cl100k(before, after) && !after_letter
}

/// The class as far as these patterns tell them apart.
fn kind(char: Char) -> u8 {
    match char.class {
        SPACE => SPACE,
        NUMBER => NUMBER,
        OTHER | MARK => OTHER,
        _ => LETTER,
    }
}
