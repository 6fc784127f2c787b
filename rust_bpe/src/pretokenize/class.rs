//! Characters and their classes: UTF-8 read forwards and backwards, one bit a class, so that a set is an `or`.
//!
//! A byte that is not part of a valid UTF-8 sequence is a character of its own of class [`OTHER`], as U+FFFD would be.

use super::unicode_tables::{BLOCK_OF, BLOCKS, PAGE_OF};

/// One class or a set of classes.
pub type Class = u8;

/// Neither letter, mark, number nor white space: punctuation, symbols, controls, unassigned, bad bytes.
pub const OTHER: Class = 1;
/// Lu and Lt.
pub const UPPER: Class = 1 << 1;
/// Ll.
pub const LOWER: Class = 1 << 2;
/// Lm and Lo: letters without case.
pub const UNCASED: Class = 1 << 3;
/// M: combining marks, no letters.
pub const MARK: Class = 1 << 4;
/// N.
pub const NUMBER: Class = 1 << 5;
/// White_Space, the `\s` of the patterns.
pub const SPACE: Class = 1 << 6;

pub const LETTER: Class = UPPER | LOWER | UNCASED;

/// A character's class and its length in bytes (1 to 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Char {
    pub class: Class,
    pub len: usize,
}

/// The character at `at`, which lies inside `text` and is the start of a character.
#[inline(always)]
pub fn char_at(text: &[u8], at: usize) -> Char {
    match text[at] {
        ascii @ 0..0x80 => Char { class: ASCII[ascii as usize], len: 1 },
        _ => wide_char_at(text, at).unwrap_or(Char { class: OTHER, len: 1 }),
    }
}

/// The end of the run of characters of `set` that begins at `at`; `at` itself when there is none.
#[inline(always)]
pub fn run_end(text: &[u8], mut at: usize, set: Class) -> usize {
    while at < text.len() {
        let char = char_at(text, at);
        if char.class & set == 0 {
            break;
        }
        at += char.len;
    }
    at
}

/// The start of the last character of `text[..end]`, of which every character is valid and `end > 0`.
#[inline(always)]
pub fn last_char_start(text: &[u8], end: usize) -> usize {
    let mut start = end - 1;
    while is_continuation(text[start]) && start > 0 {
        start -= 1;
    }
    start
}

/// The character at `at`, or None when it is a bad byte or may go on after the end of `text`.
pub fn whole_char_at(text: &[u8], at: usize) -> Option<Char> {
    match *text.get(at)? {
        ascii @ 0..0x80 => Some(Char { class: ASCII[ascii as usize], len: 1 }),
        _ => wide_char_at(text, at),
    }
}

/// The character that ends at `end`, or None when it is a bad byte or may have begun before `text`.
pub fn whole_char_before(text: &[u8], end: usize) -> Option<Char> {
    let start = (1..=4.min(end)).map(|len| end - len).find(|&start| !is_continuation(text[start]))?;
    whole_char_at(text, start).filter(|char| start + char.len == end)
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// The character of two to four bytes at `at`, None when the bytes there are not valid UTF-8 (Unicode 16, table 3-7).
#[inline(always)]
fn wide_char_at(text: &[u8], at: usize) -> Option<Char> {
    let lead = text[at] as usize;
    let second = *text.get(at + 1)?;
    let low = (second & 0x3F) as usize;
    let allowed = match lead {
        0xE0 => 0xA0..=0xBF,
        0xED => 0x80..=0x9F,
        0xF0 => 0x90..=0xBF,
        0xF4 => 0x80..=0x8F,
        _ => 0x80..=0xBF,
    };
    if !allowed.contains(&second) {
        return None;
    }
    let next = |offset: usize| text.get(at + offset).filter(|&&b| is_continuation(b)).map(|b| (b & 0x3F) as usize);
    match lead {
        0xC2..=0xDF => Some(Char { class: class_in_block(lead & 0x1F, low), len: 2 }),
        0xE0..=0xEF => Some(Char { class: class_in_block((lead & 0x0F) << 6 | low, next(2)?), len: 3 }),
        0xF0..=0xF4 => {
            let page = PAGE_OF[((lead & 0x07) << 6 | low) - 16] as usize;
            Some(Char { class: class_in_block(page << 6 | next(2)?, next(3)?), len: 4 })
        }
        _ => None,
    }
}

#[inline(always)]
fn class_in_block(index: usize, place: usize) -> Class {
    CLASSES[(BLOCK_OF[index] as usize) << 6 | place]
}

const N_CLASSES: usize = BLOCKS.len() * 16;

/// [`BLOCKS`] with a byte a code point, as one bit.
static CLASSES: [Class; N_CLASSES] = {
    let mut classes = [0; N_CLASSES];
    let mut i = 0;
    while i < N_CLASSES {
        classes[i] = 1 << (BLOCKS[i / 16] >> (4 * (i % 16)) & 15);
        i += 1;
    }
    classes
};

static ASCII: [Class; 128] = {
    let mut classes = [0; 128];
    let mut code = 0;
    while code < 128 {
        classes[code] = CLASSES[(BLOCK_OF[code >> 6] as usize) << 6 | code & 63];
        code += 1;
    }
    classes
};
