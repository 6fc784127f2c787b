//! GPT-2's pattern: `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.

use super::class::{LETTER, MARK, NUMBER, OTHER, SPACE, char_at, run_end};
use super::parts::{contraction, space_before_word};

/// The end of the pre-token that begins at `at`, which lies inside `text`.
#[inline(always)]
pub fn next(text: &[u8], at: usize) -> usize {
    if let Some(len) = contraction(&text[at..], false) {
        return at + len;
    }
    let mut first = char_at(text, at);
    let mut end = at + first.len;
    if text[at] == b' ' && end < text.len() {
        let second = char_at(text, end);
        if second.class != SPACE {
            first = second;
            end += second.len;
        }
    }
    match first.class {
        SPACE => space_before_word(text, at),
        NUMBER => run_end(text, end, NUMBER),
        OTHER | MARK => run_end(text, end, OTHER | MARK),
        _ => run_end(text, end, LETTER),
    }
}
