//! The `whitespace` pattern: ` ?\S+|\s+(?!\S)|\s+`, GPT-2's treatment of white space and no other cut.

use super::class::{Class, SPACE, char_at, run_end};
use super::parts::space_before_word;

const NOT_SPACE: Class = !SPACE;

/// The end of the pre-token that begins at `at`, which lies inside `text`.
#[inline(always)]
pub fn next(text: &[u8], at: usize) -> usize {
    let first = char_at(text, at);
    let after = at + first.len;
    if first.class != SPACE {
        return run_end(text, after, NOT_SPACE);
    }
    if text[at] == b' ' && after < text.len() && char_at(text, after).class != SPACE {
        return run_end(text, after, NOT_SPACE);
    }
    space_before_word(text, at)
}
