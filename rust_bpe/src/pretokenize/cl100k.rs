//! The pattern of cl100k, and Llama 3's, which differs in white space at the end of the text alone.
//!
//! `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]|\s+(?!\S)|\s`;
//! Llama 3 has no `\s+\z`, so that line ends within that white space count.

use super::blocks::Scanner;
use super::class::{LETTER, MARK, NUMBER, OTHER, SPACE, char_at, run_end};
use super::lines::{Lines, cuts};
use super::masks::Masks;
use super::parts::{bytes_end, contraction, is_line_end, space_by_lines};

pub struct Cl100k;

impl Scanner for Cl100k {
    #[inline(always)]
    fn next(text: &[u8], at: usize) -> usize {
        next_by(text, at, |text, at| {
            let end = run_end(text, at, SPACE);
            if end == text.len() { end } else { space_by_lines(text, at) }
        })
    }

    #[inline(always)]
    fn cuts(masks: &Masks) -> u64 {
        cuts(masks, masks.letter(), masks.other | masks.mark)
    }

    #[inline(always)]
    fn starts(masks: &Masks, within: u64, text: &[u8]) -> Option<u64> {
        let letter = masks.letter();
        let starts = Lines::new(masks, letter, masks.other | masks.mark).starts(masks, within)?;
        Some(split_contractions(starts, masks.apostrophe & letter >> 1 & within, text))
    }
}

pub struct Llama3;

impl Scanner for Llama3 {
    #[inline(always)]
    fn next(text: &[u8], at: usize) -> usize {
        next_by(text, at, space_by_lines)
    }

    #[inline(always)]
    fn cuts(masks: &Masks) -> u64 {
        Cl100k::cuts(masks)
    }

    /// No window holds the white space at the end of the text.
    #[inline(always)]
    fn starts(masks: &Masks, within: u64, text: &[u8]) -> Option<u64> {
        Cl100k::starts(masks, within, text)
    }
}

/// Lets the contractions among `apostrophes` end where they do, if a pre-token begins there.
#[inline(always)]
fn split_contractions(mut starts: u64, apostrophes: u64, text: &[u8]) -> u64 {
    let mut left = apostrophes & (starts | 1);
    while left != 0 {
        let place = left.trailing_zeros() as usize;
        left &= left - 1;
        if let Some(len) = contraction(&text[place..], true) {
            starts |= 1 << (place + len);
        }
    }
    starts
}

#[inline(always)]
fn next_by(text: &[u8], at: usize, space_end: impl Fn(&[u8], usize) -> usize) -> usize {
    if let Some(len) = contraction(&text[at..], true) {
        return at + len;
    }
    let first = char_at(text, at);
    let end = at + first.len;
    if first.class & LETTER != 0 {
        return run_end(text, end, LETTER);
    }
    if first.class == NUMBER {
        return number_end(text, end);
    }
    if end < text.len() {
        let second = char_at(text, end);
        if second.class & LETTER != 0 && !is_line_end(text[at]) {
            return run_end(text, end + second.len, LETTER);
        }
        if second.class & (OTHER | MARK) != 0 && text[at] == b' ' {
            return other_end(text, end + second.len);
        }
    }
    if first.class == SPACE { space_end(text, at) } else { other_end(text, end) }
}

/// Where `\p{N}{1,3}` ends, its first number ending at `at`.
#[inline(always)]
pub fn number_end(text: &[u8], mut at: usize) -> usize {
    for _ in 0..2 {
        if at == text.len() {
            break;
        }
        let char = char_at(text, at);
        if char.class != NUMBER {
            break;
        }
        at += char.len;
    }
    at
}

#[inline(always)]
fn other_end(text: &[u8], at: usize) -> usize {
    bytes_end(text, run_end(text, at, OTHER | MARK), is_line_end)
}
