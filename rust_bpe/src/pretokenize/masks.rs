//! A window's masks: a bit a byte for each class of character, from 64 bytes of text.

use super::class::{
    Class, INVALID, LOWER, MARK, NUMBER, OTHER, SPACE, UNCASED, UPPER, char_at, number_of_three, number_of_two,
};

/// Bytes in a window.
pub const WINDOW: usize = 64;

/// How 64 bytes become masks, and a mask places.
pub trait Classify: Copy {
    fn ascii(self, block: &[u8; WINDOW]) -> Ascii;

    /// Writes `at` + the place of each bit and returns how many. Places beyond them are overwritten: without a branch on
    /// the number of bits, which differs from window to window.
    #[inline(always)]
    fn write_places(self, mut bits: u64, at: usize, room: &mut [usize; WINDOW]) -> usize {
        const STEP: usize = 16; // English has 12 pre-tokens in a window
        let n_bits = bits.count_ones() as usize;
        for step in room.chunks_exact_mut(STEP) {
            for end in step {
                *end = at + bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
            }
            if bits == 0 {
                break;
            }
        }
        n_bits
    }
}

/// Bit i says something of byte i; a byte from 0x80 on is in the last four alone.
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
    /// From 0x80 on.
    pub high: u64,
    /// From 0xC0, 0xE0 and 0xF0 on: the first bytes of characters of at least two, three and four bytes.
    pub lead: u64,
    pub lead3: u64,
    pub lead4: u64,
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

impl Masks {
    /// The masks of the first bytes of `text`, which `block` holds, padded with zeros after `within`. Of a character that
    /// goes on behind the block nothing need be known.
    #[inline(always)]
    pub fn new(ascii: Ascii, block: &[u8; WINDOW], text: &[u8], within: u64) -> Masks {
        let known = ascii.upper | ascii.lower | ascii.number | ascii.space | ascii.high;
        let mut masks = Masks {
            upper: ascii.upper,
            lower: ascii.lower,
            number: ascii.number,
            space: ascii.space,
            blank: ascii.blank,
            line_end: ascii.line_end,
            apostrophe: ascii.apostrophe,
            slash: ascii.slash,
            other: within & !known,
            ..Masks::default()
        };
        if ascii.high != 0 {
            masks.add_wide(&ascii, block, text);
        }
        masks
    }

    pub fn letter(&self) -> u64 {
        self.upper | self.lower | self.uncased
    }

    /// All but white space.
    pub fn solid(&self) -> u64 {
        self.letter() | self.mark | self.number | self.other
    }

    /// Adds the characters of several bytes: those of two and three bytes without a branch for each.
    #[inline(always)]
    fn add_wide(&mut self, ascii: &Ascii, block: &[u8; WINDOW], text: &[u8]) {
        let inner = ascii.lead << 1 | ascii.lead3 << 2 | ascii.lead4 << 3;
        let well_formed = inner == ascii.high & !ascii.lead;
        let mut sets = Sets { masks: [0; 8], inner };
        if well_formed && ascii.lead4 == 0 {
            sets.add_two_and_three(ascii, block);
        }
        if !well_formed || ascii.lead4 != 0 || sets.masks[INVALID as usize] != 0 {
            sets = Sets::careful(ascii, text);
        }
        let set = |class: Class| sets.masks[class.trailing_zeros() as usize];
        self.upper |= set(UPPER);
        self.lower |= set(LOWER);
        self.uncased |= set(UNCASED);
        self.mark |= set(MARK);
        self.number |= set(NUMBER);
        self.space |= set(SPACE);
        self.other |= set(OTHER);
        self.wide_space = set(SPACE);
        self.wide_number = set(NUMBER);
        self.inner = sets.inner;
    }
}

/// The bytes of characters of several bytes, by the number of their class.
struct Sets {
    masks: [u64; 8],
    /// Those after the first of their character.
    inner: u64,
}

impl Sets {
    /// Characters of two and three bytes inside the block.
    #[inline(always)]
    fn add_two_and_three(&mut self, ascii: &Ascii, block: &[u8; WINDOW]) {
        let byte = |place: usize| block[place % WINDOW];
        let mut two = ascii.lead & !ascii.lead3 & !0 >> 1;
        while two != 0 {
            let place = two.trailing_zeros() as usize;
            two &= two - 1;
            let number = number_of_two(byte(place), byte(place + 1));
            self.masks[number as usize % 8] |= 3 << place;
        }
        let mut three = ascii.lead3 & !0 >> 2;
        while three != 0 {
            let place = three.trailing_zeros() as usize;
            three &= three - 1;
            let number = number_of_three(byte(place), byte(place + 1), byte(place + 2));
            self.masks[number as usize % 8] |= 7 << place;
        }
    }

    /// Any characters and bad bytes: a byte from 0x80 to 0xBF that belongs to no character is one of its own.
    #[inline(never)]
    fn careful(ascii: &Ascii, text: &[u8]) -> Self {
        let mut sets = Sets { masks: [0; 8], inner: 0 };
        let mut leads = ascii.lead;
        while leads != 0 {
            let place = leads.trailing_zeros() as usize;
            leads &= leads - 1;
            let char = char_at(text, place);
            let bits = ((1 << char.len) - 1) << place;
            sets.masks[char.class.trailing_zeros() as usize % 8] |= bits;
            sets.inner |= bits & bits << 1;
        }
        sets.masks[OTHER.trailing_zeros() as usize] |= ascii.high & !ascii.lead & !sets.inner;
        sets
    }
}

/// The places after those of `mask`.
pub fn after(mask: u64) -> u64 {
    mask << 1
}

/// The first places of the runs of `mask`.
pub fn firsts(mask: u64) -> u64 {
    mask & !(mask << 1)
}

/// The runs of `mask` that begin at one of `seeds`: adding a bit carries through its run.
pub fn runs_from(mask: u64, seeds: u64) -> u64 {
    mask & !mask.wrapping_add(firsts(mask) & seeds)
}
