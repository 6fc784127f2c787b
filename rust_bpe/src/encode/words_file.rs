//! `tokenizer.words`: the words whose tokens are known, kept beside the vocabulary that they belong to.
//!
//! All integers are little-endian. In order: a name of 16 bytes, the sha256 of the vocabulary's tokenizer.json, the number
//! of words, of their bytes and of their tokens (8 bytes each), where each word and where its tokens end (4 and 4 bytes),
//! the bytes, the tokens (4 bytes each); then the sha256 of what stands before the tokens, and that of the tokens: halves of
//! about one size, which are hashed at once. A file that is not whole, or another vocabulary's, is as none: it holds nothing
//! that could not be found again.

use std::convert::Infallible;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, cast_slice, cast_slice_mut};

use super::known::KnownWords;
use crate::checksum::Sha256;
use crate::memory;
use crate::parallel;
use crate::token::TokenId;
use crate::vocabulary::MAX_VOCABULARY_FILE_BYTES;

const NAME: &[u8; 16] = b"pylm words 2\n\0\0\0";
const HEADER_BYTES: usize = 16 + 32 + 3 * 8;

impl KnownWords {
    /// The content of the file. `vocabulary` is the sha256 of its tokenizer.json.
    pub fn to_bytes(&self, vocabulary: &[u8; 32]) -> Vec<u8> {
        let file = Mutex::new(Vec::new());
        let put = |bytes: &[u8], offset: u64| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let end = offset as usize + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[offset as usize..end].copy_from_slice(bytes);
            Ok::<(), Infallible>(())
        };
        let Ok(()) = Self::write(std::slice::from_ref(self), vocabulary, 1, put);
        file.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the content of the file, of words in `parts`, to `put` in pieces with their offsets. Each is written while it is
    /// in the caches, where it was hashed, by up to two threads.
    pub fn write<E: Send>(
        parts: &[Self],
        vocabulary: &[u8; 32],
        n_threads: usize,
        put: impl Fn(&[u8], u64) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let mut header = NAME.to_vec();
        header.extend(vocabulary);
        let [mut n_words, mut n_bytes, mut n_ids] = [0; 3];
        let mut ends = Vec::new();
        for part in parts {
            ends.extend(
                part.ends.chunks(PIECE_BYTES / 8).map(|piece| Piece::Ends(piece, [n_bytes as u32, n_ids as u32])),
            );
            n_words += part.len();
            n_bytes += part.bytes.len();
            n_ids += part.ids.len();
        }
        [n_words, n_bytes, n_ids].iter().for_each(|&size| header.extend((size as u64).to_le_bytes()));
        let mut before = vec![Piece::Bytes(&header)];
        before.extend(ends);
        before.extend(parts.iter().flat_map(|part| part.bytes.chunks(PIECE_BYTES)).map(Piece::Bytes));
        let tokens = parts.iter().flat_map(|part| part.ids.chunks(PIECE_BYTES / 4)).map(Piece::Ids).collect();
        let n_before = (HEADER_BYTES + 8 * n_words + n_bytes) as u64;

        let mut halves = [Half::new(before, 0), Half::new(tokens, n_before)];
        if n_threads > 1 && n_before as usize + 4 * n_ids >= MANY_BYTES {
            let written = parallel::map(&mut halves, |half| half.write(&put));
            written.into_iter().collect::<Result<(), E>>()?;
        } else {
            Half::write_both(&mut halves, &put)?;
        }
        let checksums = halves.map(|half| half.hash.finish());
        put(checksums.as_flattened(), n_before + 4 * n_ids as u64)
    }

    /// Reads what [`KnownWords::to_bytes`] wrote; None for anything else, and for an id above `largest_id`.
    pub fn from_bytes(file: &[u8], vocabulary: &[u8; 32], largest_id: TokenId) -> Option<Self> {
        Self::read(file, file.len() as u64, vocabulary, largest_id)
    }

    /// The same from a file of `size_bytes`; None where it cannot be read, too. Each part is read to where it stays: of 46 MB
    /// every copy costs new pages.
    pub fn read(mut file: impl Read, size_bytes: u64, vocabulary: &[u8; 32], largest_id: TokenId) -> Option<Self> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header).ok()?;
        if header[..16] != *NAME || header[16..48] != *vocabulary || size_bytes > MAX_VOCABULARY_FILE_BYTES {
            return None;
        }
        let (sizes, _) = header[48..].as_chunks::<8>();
        let [n_words, n_bytes, n_ids] = [0, 1, 2].map(|index| u64::from_le_bytes(sizes[index]));
        let n_before = n_words.checked_mul(8)?.checked_add(n_bytes)?;
        let content_bytes = n_before.checked_add(n_ids.checked_mul(4)?)?;
        if content_bytes.checked_add(HEADER_BYTES as u64 + 2 * 32)? != size_bytes {
            return None;
        }
        // Below the limit, so they fit any integer.
        let mut ends: Vec<[u32; 2]> = array(&mut file, n_words as usize)?;
        let bytes: Vec<u8> = array(&mut file, n_bytes as usize)?;
        let mut ids: Vec<TokenId> = array(&mut file, n_ids as usize)?;
        let written: Vec<[u8; 32]> = array(&mut file, 2)?;
        if written != checksums(&[&header, cast_slice(&ends), &bytes], cast_slice(&ids)) {
            return None;
        }
        ends.as_flattened_mut().iter_mut().chain(&mut ids).for_each(|number| *number = u32::from_le(*number));

        let none = [0; 2];
        // No word, and no word's tokens, are empty.
        let mut pairs = std::iter::once(&none).chain(&ends).zip(&ends);
        let grows = pairs.all(|(before, after)| before[0] < after[0] && before[1] < after[1]);
        let [end, last] = ends.last().unwrap_or(&none).map(|end| end as usize);
        let is_whole = grows && (end, last) == (bytes.len(), ids.len());
        let largest = ids.iter().copied().fold(0, TokenId::max);
        (is_whole && largest <= largest_id).then_some(Self { bytes, ids, ends })
    }
}

/// A smaller file is written sooner than another thread has begun.
const MANY_BYTES: usize = 8 << 20;

/// What is hashed, written and forgotten at once.
const PIECE_BYTES: usize = 1 << 18;

/// Of a file that is being written.
enum Piece<'w> {
    Bytes(&'w [u8]),
    /// With what is to be added to each.
    Ends(&'w [[u32; 2]], [u32; 2]),
    Ids(&'w [TokenId]),
}

impl Piece<'_> {
    /// The bytes as they are in the file; `numbers` is room for some.
    fn bytes<'b>(&'b self, numbers: &'b mut Vec<u32>) -> &'b [u8] {
        numbers.clear();
        match self {
            Piece::Bytes(bytes) => return bytes,
            Piece::Ends(ends, [start, first]) => {
                numbers.extend(ends.iter().flat_map(|[end, last]| [(start + end).to_le(), (first + last).to_le()]));
            }
            Piece::Ids(ids) => numbers.extend(ids.iter().map(|id| id.to_le())),
        }
        cast_slice(numbers)
    }
}

/// What stands before the tokens, or the tokens.
struct Half<'w> {
    pieces: std::vec::IntoIter<Piece<'w>>,
    offset: u64,
    hash: Sha256,
    numbers: Vec<u32>,
}

impl<'w> Half<'w> {
    fn new(pieces: Vec<Piece<'w>>, offset: u64) -> Self {
        Self { pieces: pieces.into_iter(), offset, hash: Sha256::new(), numbers: Vec::new() }
    }

    fn write<E>(&mut self, put: &impl Fn(&[u8], u64) -> Result<(), E>) -> Result<(), E> {
        for piece in self.pieces.by_ref() {
            let bytes = piece.bytes(&mut self.numbers);
            self.hash.update(bytes);
            put(bytes, self.offset)?;
            self.offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Two streams are hashed in little more time than one.
    fn write_both<E>([first, second]: &mut [Self; 2], put: &impl Fn(&[u8], u64) -> Result<(), E>) -> Result<(), E> {
        loop {
            let (one, other) = match (first.pieces.next(), second.pieces.next()) {
                (None, None) => return Ok(()),
                (one, other) => (one.unwrap_or(Piece::Bytes(&[])), other.unwrap_or(Piece::Bytes(&[]))),
            };
            let (bytes, other_bytes) = (one.bytes(&mut first.numbers), other.bytes(&mut second.numbers));
            first.hash.update_with(bytes, &mut second.hash, other_bytes);
            put(bytes, first.offset)?;
            put(other_bytes, second.offset)?;
            first.offset += bytes.len() as u64;
            second.offset += other_bytes.len() as u64;
        }
    }
}

/// So many elements as the file has them.
fn array<T: Pod>(file: &mut impl Read, n: usize) -> Option<Vec<T>> {
    let mut array = memory::zeroed(n);
    file.read_exact(cast_slice_mut(&mut array)).ok()?;
    Some(array)
}

/// Of what stands before the tokens, in stretches, and of the tokens.
fn checksums(before: &[&[u8]], mut tokens: &[u8]) -> [[u8; 32]; 2] {
    let (mut first, mut second) = (Sha256::new(), Sha256::new());
    for stretch in before {
        let (now, later) = tokens.split_at(stretch.len().min(tokens.len()));
        first.update_with(stretch, &mut second, now);
        tokens = later;
    }
    second.update(tokens);
    [first.finish(), second.finish()]
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
            let mut hostile = file[..file.len() - 2 * 32].to_vec();
            hostile[place..place + 8].copy_from_slice(&value.to_le_bytes());
            let (before, tokens) = hostile.split_at(hostile.len() - 4);
            let checksums = checksums(&[before], tokens);
            hostile.extend(checksums.as_flattened());
            assert_eq!(KnownWords::from_bytes(&hostile, &[5; 32], 9), None, "{value} at {place}");
        }
    }
}
