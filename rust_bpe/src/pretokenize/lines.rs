//! What the masks of cl100k and o200k share: prefixes, line ends, groups of three numbers.

use super::masks::{Masks, after, firsts, runs_from};

/// The parts of a window of `words` (letters, and marks where they are part of words) and `other`, each a set of places.
pub struct Lines {
    words: u64,
    other: u64,
    /// Line ends that belong to the punctuation before them.
    taken: u64,
}

impl Lines {
    #[inline(always)]
    pub fn new(masks: &Masks, words: u64, other: u64) -> Self {
        Lines { words, other, taken: runs_from(masks.line_end, after(other)) }
    }

    /// Places in the window that follow a line end of punctuation.
    #[inline(always)]
    pub fn after_taken(&self) -> u64 {
        after(self.taken)
    }

    /// Where pre-tokens begin, contractions and changes inside words apart. None when the masks cannot tell.
    #[inline(always)]
    pub fn starts(&self, masks: &Masks, within: u64) -> Option<u64> {
        let space = self.space_starts(masks, within)?;
        let other = firsts(self.other) & !after(masks.blank);
        Some((space | self.word_starts(masks) | other | number_starts(masks.number)) & within)
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+` without the line ends that are taken.
    #[inline(always)]
    fn space_starts(&self, masks: &Masks, within: u64) -> Option<u64> {
        let space = masks.space & !self.taken;
        let line_end = masks.line_end & space;
        let within_line = space & !line_end;
        // White space between two line ends of one run: where the run's last line end is, is not known by shifts.
        let indent = firsts(within_line) & after(line_end);
        let behind_indent = within_line.wrapping_add(indent) & !within_line;
        if (masks.wide_space | masks.wide_number | behind_indent & line_end) & within != 0 {
            return None;
        }
        let last_before_word = within_line & (self.words | self.other | masks.number) >> 1;
        Some(firsts(space) | indent | last_before_word)
    }

    /// A word takes the one character before it that is white space, no line end, or punctuation that stands alone.
    #[inline(always)]
    fn word_starts(&self, masks: &Masks) -> u64 {
        let alone = firsts(self.other) & !after(masks.blank);
        let character = alone | runs_from(masks.inner, after(alone));
        let behind_character = after(character) & !character;
        let prefixed = behind_character & !self.other | after(masks.space & !masks.line_end);
        firsts(self.words) & !prefixed
    }
}

/// Every third of each run, of numbers of one byte.
#[inline(always)]
fn number_starts(number: u64) -> u64 {
    let mut starts = firsts(number);
    let fourth = number & number << 1 & number << 2 & number << 3;
    let mut next = starts << 3 & fourth;
    while next != 0 {
        starts |= next;
        next = next << 3 & fourth;
    }
    starts
}

/// The places of a window where a cut is safe; `marks` and `apostrophes` after a letter are part of the word in o200k.
#[inline(always)]
pub fn cuts(masks: &Masks, words: u64, other: u64) -> u64 {
    let changes = firsts(words) | firsts(masks.number) | firsts(other) | firsts(masks.space);
    changes & !after(masks.space) & !(after(other) & (words | masks.line_end))
}
