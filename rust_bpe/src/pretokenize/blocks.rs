//! Pre-tokens of up to 64 bytes at once: a bit mask for each class of byte, boundaries by shifts of the masks.
//!
//! A window is 64 bytes from a boundary on, ended at the last place where a cut is safe ([`super::cut`] has the rules), so it
//! splits as if it stood alone and no state crosses from one to the next. What the masks cannot tell (rare white space,
//! marks without a letter, a window without a cut) is walked by the pattern's scanner, the slow twin in the tests.

use super::class::{LOWER, MARK, NUMBER, OTHER, SPACE, UNCASED, UPPER, char_at};
use super::{PRETOKEN_BATCH, check_length};
use crate::error::Result;

pub const WINDOW: usize = 64;

/// A pattern: where a pre-token ends, and the same for a window of masks.
pub trait Scanner {
    /// The end of the pre-token that begins at `at`, which lies inside `text`.
    fn next(text: &[u8], at: usize) -> usize;

    /// The places in a window where a cut is safe.
    fn cuts(masks: &Masks) -> u64;

    /// The places in `text`, a window that `masks` describes, where pre-tokens begin; bit 0 says nothing. None when the
    /// masks cannot tell.
    fn starts(masks: &Masks, text: &[u8]) -> Option<u64>;
}

/// How 64 bytes become masks.
pub trait Classify: Copy {
    /// The masks of the bytes below 0x80, and which are not.
    fn ascii(self, block: &[u8; WINDOW]) -> Ascii;
}

/// Bit i says something of byte i; a byte from 0x80 on is in `high` alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ascii {
    pub upper: u64,
    pub lower: u64,
    pub number: u64,
    pub space: u64,
    /// The character ' '.
    pub blank: u64,
    /// Carriage return and line feed.
    pub line_end: u64,
    pub apostrophe: u64,
    pub slash: u64,
    pub high: u64,
    /// From 0xC0 on: the first bytes of longer characters.
    pub lead: u64,
}

/// Every byte of a window in the class of its character.
#[derive(Clone, Copy, Debug, Default)]
pub struct Masks {
    pub upper: u64,
    pub lower: u64,
    pub uncased: u64,
    pub mark: u64,
    pub number: u64,
    pub space: u64,
    pub other: u64,
    pub blank: u64,
    pub line_end: u64,
    pub apostrophe: u64,
    pub slash: u64,
    /// Bytes after the first of their character.
    pub inner: u64,
    /// White space or numbers of several bytes: the masks do not tell how many.
    pub wide_space: u64,
    pub wide_number: u64,
}

/// Fills `ends` as [`super::Pattern::boundaries`] says.
#[inline(always)]
pub fn fill<S: Scanner>(classify: impl Classify, text: &[u8], start: usize, ends: &mut Vec<usize>) -> Result<()> {
    let mut at = start;
    while at < text.len() && ends.len() + WINDOW <= PRETOKEN_BATCH {
        let (len, starts) = window::<S>(classify, text, at);
        match starts {
            Some(starts) => {
                push_bits(starts & low_bits(len) & !1, at, ends);
                at += len;
                ends.push(at);
            }
            None => {
                let until = at + len;
                while at < until {
                    let end = S::next(text, at);
                    check_length(at, end)?;
                    ends.push(end);
                    at = end;
                }
            }
        }
    }
    Ok(())
}

/// The length of the window at `at` and where pre-tokens begin in it, None to walk it.
#[inline(always)]
fn window<S: Scanner>(classify: impl Classify, text: &[u8], at: usize) -> (usize, Option<u64>) {
    let rest = &text[at..];
    let mut masks;
    let len = match rest.first_chunk::<WINDOW>() {
        Some(block) => {
            masks = masks_of(classify.ascii(block), text, at, WINDOW);
            0
        }
        None => {
            let mut block = [0; WINDOW];
            block[..rest.len()].copy_from_slice(rest);
            masks = masks_of(classify.ascii(&block), text, at, rest.len());
            // White space at the end of the text is the scanner's.
            if masks.space >> (rest.len() - 1) & 1 == 0 { rest.len() } else { 0 }
        }
    };
    let len = if len > 0 {
        len
    } else {
        let cuts = S::cuts(&masks) & !1;
        if cuts == 0 {
            return (WINDOW.min(rest.len()), None);
        }
        63 - cuts.leading_zeros() as usize
    };
    masks.keep(len);
    (len, S::starts(&masks, &rest[..len]))
}

/// All masks of the first `len` bytes at `at`. A character that is cut by the end of the window is left out.
#[inline(always)]
fn masks_of(ascii: Ascii, text: &[u8], at: usize, len: usize) -> Masks {
    let mut masks = Masks {
        upper: ascii.upper,
        lower: ascii.lower,
        number: ascii.number,
        space: ascii.space,
        blank: ascii.blank,
        line_end: ascii.line_end,
        apostrophe: ascii.apostrophe,
        slash: ascii.slash,
        other: low_bits(len) & !(ascii.upper | ascii.lower | ascii.number | ascii.space | ascii.high),
        ..Masks::default()
    };
    if ascii.high != 0 {
        masks.add_wide(ascii, text, at);
    }
    masks
}

impl Masks {
    #[inline(always)]
    fn add_wide(&mut self, ascii: Ascii, text: &[u8], at: usize) {
        let mut sets = [0; 8];
        let mut inner = 0;
        let mut leads = ascii.lead;
        while leads != 0 {
            let place = leads.trailing_zeros() as usize;
            leads &= leads - 1;
            let char = char_at(text, at + place);
            let bits = low_bits(char.len) << place;
            sets[char.class.trailing_zeros() as usize & 7] |= bits;
            inner |= bits & bits << 1;
        }
        // Bytes from 0x80 to 0xBF that belong to no character are characters of their own.
        let class = |class: u8| sets[class.trailing_zeros() as usize];
        self.other |= class(OTHER) | ascii.high & !ascii.lead & !inner;
        self.upper |= class(UPPER);
        self.lower |= class(LOWER);
        self.uncased |= class(UNCASED);
        self.mark |= class(MARK);
        self.number |= class(NUMBER);
        self.space |= class(SPACE);
        self.wide_space = class(SPACE);
        self.wide_number = class(NUMBER);
        self.inner = inner;
    }

    #[inline(always)]
    pub fn letter(&self) -> u64 {
        self.upper | self.lower | self.uncased
    }

    /// All but white space.
    #[inline(always)]
    pub fn solid(&self) -> u64 {
        self.letter() | self.mark | self.number | self.other
    }

    #[inline(always)]
    fn keep(&mut self, len: usize) {
        let kept = low_bits(len);
        for mask in [
            &mut self.upper,
            &mut self.lower,
            &mut self.uncased,
            &mut self.mark,
            &mut self.number,
            &mut self.space,
            &mut self.other,
            &mut self.blank,
            &mut self.line_end,
            &mut self.apostrophe,
            &mut self.slash,
            &mut self.inner,
            &mut self.wide_space,
            &mut self.wide_number,
        ] {
            *mask &= kept;
        }
    }
}

/// The places after those of `mask`.
#[inline(always)]
pub fn after(mask: u64) -> u64 {
    mask << 1
}

/// The first places of the runs of `mask`.
#[inline(always)]
pub fn firsts(mask: u64) -> u64 {
    mask & !(mask << 1)
}

/// The runs of `mask` that begin at one of `seeds`: adding a bit carries through its run.
#[inline(always)]
pub fn runs_from(mask: u64, seeds: u64) -> u64 {
    mask & !mask.wrapping_add(firsts(mask) & seeds)
}

#[inline(always)]
fn low_bits(n: usize) -> u64 {
    if n < 64 { (1 << n) - 1 } else { !0 }
}

#[inline(always)]
fn push_bits(mut bits: u64, at: usize, ends: &mut Vec<usize>) {
    while bits != 0 {
        ends.push(at + bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}
