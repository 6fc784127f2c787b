//! Short words as integers: the bytes, zeros behind them, and the length in the last byte, so that equality is one
//! comparison and no word is equal to another one with zero bytes at its end.

use std::ops::Range;

/// A word of at most `MAX_LEN` bytes, held by value.
pub trait Key: Copy + Ord + Default {
    const MAX_LEN: usize;

    /// The word `text[start..start + len]`, where 0 < `len` <= `MAX_LEN`.
    fn of(text: &[u8], start: usize, len: usize) -> Self;

    fn hash(self) -> u64;

    /// Calls `visit` with the word's bytes.
    fn with_bytes<R>(self, visit: impl FnOnce(&[u8]) -> R) -> R;

    /// Whether this is the default value, which stands for no word (a word has a length).
    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Up to 15 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key16(u128);

/// Up to 31 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key32([u128; 2]);

impl Key for Key16 {
    const MAX_LEN: usize = 15;

    #[inline(always)]
    fn of(text: &[u8], start: usize, len: usize) -> Self {
        let word = match text.get(start..start + 16) {
            Some(window) => load(window) & low_bytes(len),
            None => load(&padded::<16>(text, start..start + len)),
        };
        Key16(word | (len as u128) << 120)
    }

    #[inline(always)]
    fn hash(self) -> u64 {
        mix(self.0)
    }

    fn with_bytes<R>(self, visit: impl FnOnce(&[u8]) -> R) -> R {
        let bytes = self.0.to_le_bytes();
        visit(&bytes[..usize::from(bytes[15])])
    }
}

impl Key for Key32 {
    const MAX_LEN: usize = 31;

    /// `len` is at least 16 here for every word that came past [`Key16`]; shorter ones would be right too.
    #[inline(always)]
    fn of(text: &[u8], start: usize, len: usize) -> Self {
        let (low, high) = match text.get(start..start + 32) {
            Some(window) => {
                (load(&window[..16]) & low_bytes(len.min(16)), load(&window[16..]) & low_bytes(len.saturating_sub(16)))
            }
            None => {
                let bytes = padded::<32>(text, start..start + len);
                (load(&bytes[..16]), load(&bytes[16..]))
            }
        };
        Key32([low, high | (len as u128) << 120])
    }

    #[inline(always)]
    fn hash(self) -> u64 {
        mix(self.0[0] ^ u128::from(mix(self.0[1])))
    }

    fn with_bytes<R>(self, visit: impl FnOnce(&[u8]) -> R) -> R {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.0[0].to_le_bytes());
        bytes[16..].copy_from_slice(&self.0[1].to_le_bytes());
        visit(&bytes[..usize::from(bytes[31])])
    }
}

#[inline(always)]
fn load(bytes: &[u8]) -> u128 {
    let mut word = [0; 16];
    word.copy_from_slice(bytes);
    u128::from_le_bytes(word)
}

/// Ones in the lowest `len` bytes, 0 <= `len` <= 16.
#[inline(always)]
fn low_bytes(len: usize) -> u128 {
    const MASKS: [u128; 17] = {
        let mut masks = [0; 17];
        let mut len = 1;
        while len <= 16 {
            masks[len] = u128::MAX >> (128 - 8 * len as u32);
            len += 1;
        }
        masks
    };
    MASKS[len]
}

/// The word alone, for the last bytes of a text, where a whole window would reach past its end.
#[cold]
fn padded<const N: usize>(text: &[u8], word: Range<usize>) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..word.len()].copy_from_slice(&text[word]);
    bytes
}

/// A 64-bit hash whose high bits are good, by which slots are found. The first factor is odd, so no single value of one
/// half hides the other half.
#[inline(always)]
fn mix(word: u128) -> u64 {
    const FIRST: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 / golden ratio
    const SECOND: u64 = 0xd6e8_feb8_6659_fd93; // an odd constant with even bit balance
    let (low, high) = (word as u64, (word >> 64) as u64);
    (low ^ high.wrapping_mul(FIRST)).wrapping_mul(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_its_word_back_wherever_it_stands() {
        let text: Vec<u8> = (0..100).map(|i| (i * 37 % 251) as u8).chain([0; 40]).collect();
        for start in 0..text.len() {
            for len in 1..=31.min(text.len() - start) {
                let word = &text[start..start + len];
                let long = Key32::of(&text, start, len);
                assert!(long.with_bytes(|bytes| bytes == word));
                assert!(long == Key32::of(word, 0, len) && !long.is_empty());
                if len <= 15 {
                    let short = Key16::of(&text, start, len);
                    assert!(short.with_bytes(|bytes| bytes == word));
                    assert!(short == Key16::of(word, 0, len) && !short.is_empty());
                }
            }
        }
    }

    #[test]
    fn words_of_zero_bytes_differ_by_their_length() {
        let zeros = [0; 64];
        for len in 1..15 {
            assert!(Key16::of(&zeros, 0, len) != Key16::of(&zeros, 0, len + 1));
        }
    }
}
