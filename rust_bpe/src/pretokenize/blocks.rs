//! Pre-tokens of up to 64 bytes at once: a bit mask for each class of byte, boundaries by shifts of the masks.
//!
//! A window is 64 bytes from a boundary on, ended at the last place where a cut is safe ([`super::cut`] has the rules), so it
//! splits as if it stood alone and no state crosses from one to the next. What the masks cannot tell (white space beyond
//! ASCII, marks without a letter, a window without a cut) is walked by the pattern's scanner, the slow twin in the tests.

use super::masks::{Classify, Masks, WINDOW};
use super::{PRETOKEN_BATCH, check_length};
use crate::error::Result;

/// A pattern: where a pre-token ends, and the same for a window of masks.
pub trait Scanner {
    /// The end of the pre-token that begins at `at`, which lies inside `text`.
    fn next(text: &[u8], at: usize) -> usize;

    /// The places in a window where a cut is safe; bit 0 says nothing.
    fn cuts(masks: &Masks) -> u64;

    /// The places of `within` where pre-tokens begin; bit 0 says nothing, and a cut or the end of the text follows
    /// `within`. None when the masks cannot tell. `text` begins with the window.
    fn starts(masks: &Masks, within: u64, text: &[u8]) -> Option<u64>;
}

/// Fills `ends` as [`super::Pattern::boundaries`] says.
#[inline(always)]
pub fn fill<S: Scanner>(classify: impl Classify, text: &[u8], start: usize, ends: &mut Vec<usize>) -> Result<()> {
    ends.resize(PRETOKEN_BATCH, 0); // what the last call left is not written again
    let (mut at, mut n_ends) = (start, 0);
    while at < text.len() {
        // A window has fewer than 64 ends, a walk through it 64 at most.
        let Some(room) = ends[n_ends..].first_chunk_mut::<WINDOW>() else { break };
        let (len, starts) = window::<S>(classify, text, at);
        if let Some(starts) = starts {
            n_ends += classify.write_places(starts & !1 | 1 << len, at, room);
            at += len;
        } else {
            let mut n_walked = 0;
            let until = at + len;
            while at < until {
                let end = S::next(text, at);
                check_length(at, end)?;
                room[n_walked] = end;
                n_walked += 1;
                at = end;
            }
            n_ends += n_walked;
        }
    }
    ends.truncate(n_ends);
    Ok(())
}

/// The length of the window at `at` and where pre-tokens begin in it, None to walk it. It is under 64 if it is Some.
#[inline(always)]
fn window<S: Scanner>(classify: impl Classify, text: &[u8], at: usize) -> (usize, Option<u64>) {
    let rest = &text[at..];
    let Some(block) = rest.first_chunk::<WINDOW>() else { return last_window::<S>(classify, rest) };
    let masks = Masks::new(classify.ascii(block), block, rest, !0);
    let cuts = S::cuts(&masks) & !1;
    if cuts == 0 {
        return (WINDOW, None);
    }
    let len = 63 - cuts.leading_zeros() as usize;
    (len, S::starts(&masks, (1 << len) - 1, rest))
}

/// The same for the end of the text, fewer than 64 bytes. White space there is left to the scanner.
#[inline(never)]
fn last_window<S: Scanner>(classify: impl Classify, rest: &[u8]) -> (usize, Option<u64>) {
    let mut block = [0; WINDOW];
    block[..rest.len()].copy_from_slice(rest);
    let within = (1 << rest.len()) - 1;
    let masks = Masks::new(classify.ascii(&block), &block, rest, within);
    if masks.space >> (rest.len() - 1) & 1 == 0 {
        return (rest.len(), S::starts(&masks, within, rest));
    }
    let cuts = S::cuts(&masks) & !1;
    if cuts == 0 {
        return (rest.len(), None);
    }
    let len = 63 - cuts.leading_zeros() as usize;
    (len, S::starts(&masks, (1 << len) - 1, rest))
}
