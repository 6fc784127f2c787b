//! The pattern of o200k: words change where a small letter meets a capital, and carry their contraction.
//!
//! With U = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, L = `[\p{Ll}\p{Lm}\p{Lo}\p{M}]` and C = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`:
//! `[^\r\n\p{L}\p{N}]?U*L+C?|[^\r\n\p{L}\p{N}]?U+L*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`.
//! Letters without case and marks are in both U and L, so the first alternative gives characters of `U*` back to `L+`.

use super::blocks::Scanner;
use super::cl100k::number_end;
use super::class::{LETTER, LOWER, MARK, NUMBER, OTHER, SPACE, UNCASED, UPPER, char_at, run_end};
use super::lines::{Lines, cuts};
use super::masks::{Masks, after, firsts};
use super::parts::{bytes_end, contraction, is_line_end, space_by_lines};

pub struct O200k;

impl Scanner for O200k {
    #[inline(always)]
    fn next(text: &[u8], at: usize) -> usize {
        next(text, at)
    }

    #[inline(always)]
    fn cuts(masks: &Masks) -> u64 {
        let words = masks.letter() | masks.mark;
        cuts(masks, words, masks.other) & !(after(words) & masks.apostrophe)
    }

    #[inline(always)]
    fn starts(masks: &Masks, within: u64, text: &[u8]) -> Option<u64> {
        let words = masks.letter() | masks.mark;
        let lines = Lines::new(masks, words, masks.other);
        let mark_without_letter = firsts(masks.mark) & !after(words);
        let capital_after_both = masks.upper & after(masks.uncased | masks.mark);
        let slash_after_line_end = masks.slash & lines.after_taken();
        if (mark_without_letter | capital_after_both | slash_after_line_end) & within != 0 {
            return None;
        }
        let starts = lines.starts(masks, within)? | masks.upper & after(masks.lower) & within;
        Some(join_contractions(starts, masks.apostrophe & after(words) & words >> 1 & within, text))
    }
}

/// Joins the contractions among `apostrophes`, each after a word, to it; one right behind another is a word of its own.
#[inline(always)]
fn join_contractions(mut starts: u64, apostrophes: u64, text: &[u8]) -> u64 {
    let mut left = apostrophes;
    let mut behind_last = 0;
    while left != 0 {
        let place = left.trailing_zeros() as usize;
        left &= left - 1;
        if place == behind_last {
            continue;
        }
        if let Some(len) = contraction(&text[place..], true) {
            behind_last = place + len;
            let inside = (1 << len) - 1;
            starts &= !(inside << place);
            starts |= 1 << behind_last;
        }
    }
    starts
}

#[inline(always)]
fn next(text: &[u8], at: usize) -> usize {
    let first = char_at(text, at);
    if first.class == NUMBER {
        return number_end(text, at + first.len);
    }
    if let Some(end) = word_end(text, at, first.class) {
        return end + contraction(&text[end..], true).unwrap_or(0);
    }
    let after = at + first.len;
    if first.class == SPACE {
        let other = text[at] == b' ' && after < text.len() && char_at(text, after).class & (OTHER | MARK) != 0;
        return if other { other_end(text, after) } else { space_by_lines(text, at) };
    }
    other_end(text, after)
}

/// Where the first two alternatives end, without the contraction.
///
/// Their order is: U*L+ after the optional character, U*L+ without it, then U+L* with and without.
#[inline(always)]
fn word_end(text: &[u8], at: usize, first: u8) -> Option<usize> {
    if first & LETTER != 0 {
        let word = word_at(text, at);
        return word.with_small.or(word.capitals);
    }
    let after = at + char_at(text, at).len;
    let after_prefix = if is_line_end(text[at]) { Word::NONE } else { word_at(text, after) };
    let without_prefix = || if first == MARK { word_at(text, at) } else { Word::NONE };
    after_prefix.with_small.or_else(|| without_prefix().with_small).or(after_prefix.capitals)
}

/// Where U*L+ and U+L* end; None where they do not match.
struct Word {
    with_small: Option<usize>,
    /// Only where `with_small` is None: then no character of the run is in L.
    capitals: Option<usize>,
}

impl Word {
    const NONE: Word = Word { with_small: None, capitals: None };
}

#[inline(always)]
fn word_at(text: &[u8], start: usize) -> Word {
    let mut at = start;
    // The end of the last character so far that is in U and in L: what U* can give back.
    let mut last_of_both = None;
    while at < text.len() {
        let char = char_at(text, at);
        match char.class {
            UPPER => {}
            UNCASED | MARK => last_of_both = Some(at + char.len),
            LOWER => {
                let end = run_end(text, at + char.len, LOWER | UNCASED | MARK);
                return Word { with_small: Some(end), capitals: None };
            }
            _ => break,
        }
        at += char.len;
    }
    Word { with_small: last_of_both, capitals: (at > start).then_some(at) }
}

#[inline(always)]
fn other_end(text: &[u8], at: usize) -> usize {
    bytes_end(text, run_end(text, at, OTHER | MARK), |b| is_line_end(b) || b == b'/')
}
