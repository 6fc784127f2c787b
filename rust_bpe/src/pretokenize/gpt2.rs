//! GPT-2's pattern: `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.

use super::blocks::Scanner;
use super::class::{LETTER, MARK, NUMBER, OTHER, SPACE, char_at, run_end};
use super::masks::{Masks, after, firsts};
use super::parts::{contraction, space_before_word};

pub struct Gpt2;

impl Scanner for Gpt2 {
    #[inline(always)]
    fn next(text: &[u8], at: usize) -> usize {
        next(text, at)
    }

    #[inline(always)]
    fn cuts(masks: &Masks) -> u64 {
        changes(masks) & !after(masks.space) & !(after(masks.apostrophe) & masks.letter())
    }

    #[inline(always)]
    fn starts(masks: &Masks, within: u64, text: &[u8]) -> Option<u64> {
        if masks.wide_space & within != 0 {
            return None;
        }
        let solid = masks.solid();
        let last_of_space = masks.space & solid >> 1;
        let starts = changes(masks) & !(solid & after(masks.blank)) | last_of_space;
        Some(split_contractions(starts & within, masks.apostrophe & masks.letter() >> 1 & within, text))
    }
}

/// Lets the contractions among `apostrophes` end where they do, if a pre-token begins there.
#[inline(always)]
fn split_contractions(mut starts: u64, apostrophes: u64, text: &[u8]) -> u64 {
    let mut left = apostrophes & (starts | 1);
    while left != 0 {
        let place = left.trailing_zeros() as usize;
        left &= left - 1;
        if let Some(len) = contraction(&text[place..], false) {
            starts &= !(2 << place);
            starts |= 1 << (place + len);
        }
    }
    starts
}

/// The first places of runs of one kind.
#[inline(always)]
fn changes(masks: &Masks) -> u64 {
    firsts(masks.letter()) | firsts(masks.number) | firsts(masks.other | masks.mark) | firsts(masks.space)
}

#[inline(always)]
fn next(text: &[u8], at: usize) -> usize {
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
