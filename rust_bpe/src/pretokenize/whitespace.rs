//! The `whitespace` pattern: ` ?\S+|\s+(?!\S)|\s+`, GPT-2's treatment of white space and no other cut.

use super::blocks::Scanner;
use super::class::{Class, SPACE, char_at, run_end};
use super::masks::{Masks, after, firsts};
use super::parts::space_before_word;

const NOT_SPACE: Class = !SPACE;

pub struct Whitespace;

impl Scanner for Whitespace {
    #[inline(always)]
    fn next(text: &[u8], at: usize) -> usize {
        next(text, at)
    }

    #[inline(always)]
    fn cuts(masks: &Masks) -> u64 {
        firsts(masks.space)
    }

    #[inline(always)]
    fn starts(masks: &Masks, within: u64, _: &[u8]) -> Option<u64> {
        let (space, solid) = (masks.space, masks.solid());
        let starts = firsts(space) | space & solid >> 1 | firsts(solid) & !after(masks.blank);
        (masks.wide_space & within == 0).then_some(starts & within)
    }
}

#[inline(always)]
fn next(text: &[u8], at: usize) -> usize {
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
