//! `tokenizer.words`: the words whose tokens are known, kept beside the vocabulary that they belong to.
//!
//! All integers are little-endian. In order: a name of 16 bytes, the sha256 of the vocabulary's tokenizer.json, the number
//! of words, of their bytes and of their tokens (8 bytes each), where each word and where its tokens end (4 and 4 bytes),
//! the bytes, the tokens (4 bytes each), and the sha256 of all that. A file that is not whole, or another vocabulary's, is
//! as none: it holds nothing that could not be found again.

use sha2::{Digest, Sha256};

use super::known::KnownWords;
use crate::token::TokenId;

const NAME: &[u8; 16] = b"pylm words 1\n\0\0\0";
const HEADER_BYTES: usize = 16 + 32 + 3 * 8;

impl KnownWords {
    /// The content of the file. `vocabulary` is the sha256 of its tokenizer.json.
    pub fn to_bytes(&self, vocabulary: &[u8; 32]) -> Vec<u8> {
        let Self { bytes, ids, ends } = self;
        let mut file = Vec::with_capacity(HEADER_BYTES + 8 * ends.len() + bytes.len() + 4 * ids.len() + 32);
        file.extend(NAME);
        file.extend(vocabulary);
        [ends.len(), bytes.len(), ids.len()].iter().for_each(|&size| file.extend((size as u64).to_le_bytes()));
        for (end, last) in ends {
            file.extend(end.to_le_bytes());
            file.extend(last.to_le_bytes());
        }
        file.extend(bytes);
        ids.iter().for_each(|id| file.extend(id.to_le_bytes()));
        let checksum = Sha256::digest(&file);
        file.extend(checksum);
        file
    }

    /// Reads what [`KnownWords::to_bytes`] wrote; None for anything else, and for an id above `largest_id`.
    pub fn from_bytes(file: &[u8], vocabulary: &[u8; 32], largest_id: TokenId) -> Option<Self> {
        let (content, checksum) = file.split_last_chunk::<32>()?;
        let (header, content_after) = content.split_at_checked(HEADER_BYTES)?;
        if header[..16] != *NAME || header[16..48] != *vocabulary || Sha256::digest(content)[..] != *checksum {
            return None;
        }
        let (sizes, _) = header[48..].as_chunks::<8>();
        let size = |number: usize| usize::try_from(u64::from_le_bytes(sizes[number])).ok();
        let (ends, rest) = content_after.split_at_checked(size(0)?.checked_mul(8)?)?;
        let (bytes, ids) = rest.split_at_checked(size(1)?)?;
        if ids.len() != size(2)?.checked_mul(4)? {
            return None;
        }
        let integers = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        let ends: Vec<u32> = integers(ends);
        let ends: Vec<(u32, u32)> = ends.as_chunks::<2>().0.iter().map(|&[end, last]| (end, last)).collect();
        let known = Self { bytes: bytes.to_vec(), ids: integers(ids), ends };
        let none = (0, 0);
        // No word, and no word's tokens, are empty.
        let mut pairs = std::iter::once(&none).chain(&known.ends).zip(&known.ends);
        let grows = pairs.all(|(before, after)| before.0 < after.0 && before.1 < after.1);
        let &(end, last) = known.ends.last().unwrap_or(&none);
        let is_whole = grows && (end as usize, last as usize) == (known.bytes.len(), known.ids.len());
        (is_whole && known.ids.iter().all(|&id| id <= largest_id)).then_some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_words_back_and_a_damaged_one_none() {
        let words: [(&[u8], &[TokenId]); 4] =
            [(b" the", &[7]), (b"a", &[0]), (b"\0\xFF", &[1, 2]), (b"zz", &[3, 70_000])];
        let known = KnownWords::from_iter(words);
        assert!(known.iter().eq(words));
        let file = known.to_bytes(&[5; 32]);
        assert_eq!(KnownWords::from_bytes(&file, &[5; 32], 70_000), Some(known));
        assert_eq!(KnownWords::from_bytes(&file, &[6; 32], 70_000), None, "another vocabulary");
        assert_eq!(KnownWords::from_bytes(&file, &[5; 32], 69_999), None, "an id that is none");
        for place in 0..file.len() {
            let mut damaged = file.clone();
            damaged[place] ^= 1;
            assert_eq!(KnownWords::from_bytes(&damaged, &[5; 32], 70_000), None, "byte {place}");
            assert_eq!(KnownWords::from_bytes(&file[..place], &[5; 32], 70_000), None, "{place} bytes");
        }
        let empty = KnownWords::default();
        assert_eq!(KnownWords::from_bytes(&empty.to_bytes(&[0; 32]), &[0; 32], 0), Some(empty));
    }

    /// Sizes that lie, with a checksum that does not.
    #[test]
    fn hostile_sizes_are_refused() {
        let file = KnownWords::from_iter([(b"ab".as_slice(), [1].as_slice())]).to_bytes(&[5; 32]);
        for (place, value) in
            [(48, u64::MAX), (48, 1 << 61), (56, 1 << 40), (64, u64::MAX / 2), (72, 0x9999), (76, 3 << 32)]
        {
            let mut hostile = file[..file.len() - 32].to_vec();
            hostile[place..place + 8].copy_from_slice(&value.to_le_bytes());
            let checksum = Sha256::digest(&hostile);
            hostile.extend(checksum);
            assert_eq!(KnownWords::from_bytes(&hostile, &[5; 32], 9), None, "{value} at {place}");
        }
    }
}
