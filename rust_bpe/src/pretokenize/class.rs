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
    let lead = text[at];
    let second = *text.get(at + 1)?;
    let next = |offset: usize| text.get(at + offset).copied().filter(|&b| is_continuation(b));
    let (number, len) = match lead {
        0xC0..=0xDF if is_continuation(second) => (number_of_two(lead, second), 2),
        0xE0..=0xEF if is_continuation(second) => (number_of_three(lead, second, next(2)?), 3),
        0xF0..=0xF4 => {
            let allowed = match lead {
                0xF0 => 0x90..=0xBF,
                0xF4 => 0x80..=0x8F,
                _ => 0x80..=0xBF,
            };
            if !allowed.contains(&second) {
                return None;
            }
            let page = PAGE_OF[(low(lead, 3) << 6 | low(second, 6)) - 16] as usize;
            (number_in_block(BLOCK_OF[page << 6 | low(next(2)?, 6)], next(3)?), 4)
        }
        _ => return None,
    };
    (number != INVALID).then_some(Char { class: 1 << number, len })
}

/// The number of a class: n for the class `1 << n`, or [`INVALID`].
pub type ClassNumber = u8;

/// Bytes that have the form of a character and are none: longer than need be, or a surrogate.
pub const INVALID: ClassNumber = 7;

/// The class of a lead byte from 0xC0 to 0xDF and a byte from 0x80 to 0xBF.
#[inline(always)]
pub fn number_of_two(lead: u8, second: u8) -> ClassNumber {
    number_in_block(BLOCK_OF_TWO[low(lead, 5)], second)
}

/// The class of a lead byte from 0xE0 to 0xEF and two bytes from 0x80 to 0xBF.
#[inline(always)]
pub fn number_of_three(lead: u8, second: u8, third: u8) -> ClassNumber {
    number_in_block(BLOCK_OF_THREE[low(lead, 4) << 6 | low(second, 6)], third)
}

#[inline(always)]
fn number_in_block(block: u16, last: u8) -> ClassNumber {
    NUMBERS[((block as usize) << 6 | low(last, 6)) % N_NUMBERS]
}

#[inline(always)]
fn low(byte: u8, n_bits: u32) -> usize {
    (byte & ((1 << n_bits) - 1)) as usize
}

const N_BLOCKS: usize = BLOCKS.len() / 4;
/// The block behind the last one holds [`INVALID`] alone.
const INVALID_BLOCK: u16 = N_BLOCKS as u16;
/// A power of two, so that an index needs no check.
const N_NUMBERS: usize = (64 * (N_BLOCKS + 1)).next_power_of_two();

/// [`BLOCKS`] with a byte a code point.
static NUMBERS: [ClassNumber; N_NUMBERS] = {
    let mut numbers = [INVALID; N_NUMBERS];
    let mut i = 0;
    while i < 64 * N_BLOCKS {
        numbers[i] = (BLOCKS[i / 16] >> (4 * (i % 16)) & 15) as u8;
        i += 1;
    }
    numbers
};

/// [`BLOCK_OF`] by the last five bits of the lead byte: 0xC0 and 0xC1 would spell ASCII.
static BLOCK_OF_TWO: [u16; 32] = {
    let mut blocks = [INVALID_BLOCK; 32];
    let mut i = 2;
    while i < 32 {
        blocks[i] = BLOCK_OF[i];
        i += 1;
    }
    blocks
};

/// [`BLOCK_OF`] by the last bits of two bytes: below U+0800 two bytes would do, U+D800 to U+DFFF are surrogates.
static BLOCK_OF_THREE: [u16; 1024] = {
    let mut blocks = [INVALID_BLOCK; 1024];
    let mut i = 0x800 >> 6;
    while i < 1024 {
        if i < 0xD800 >> 6 || i >= 0xE000 >> 6 {
            blocks[i] = BLOCK_OF[i];
        }
        i += 1;
    }
    blocks
};

static ASCII: [Class; 128] = {
    let mut classes = [0; 128];
    let mut code = 0;
    while code < 128 {
        classes[code] = 1 << NUMBERS[(BLOCK_OF[code >> 6] as usize) << 6 | code & 63];
        code += 1;
    }
    classes
};
