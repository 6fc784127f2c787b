//! SHA-256, of two streams at once where there are two, and beside other work.
//!
//! The instructions that processors have for it wait for each other: one stream leaves nearly half of their speed unused
//! (1.8 GB/s, two at once 3.3), and most of what else a core can do meanwhile. A job hashes two, its text and its ids, and
//! encodes: 74 MB of English and its ids take 45 ms more where they are hashed by themselves, 28 where a step of each stands
//! between two keys of the encoder. The crate `sha2` takes one stream at a time, so blocks of two, and those beside other
//! work, are compressed here; it compresses all others, and is the twin in tests.

#[cfg(target_arch = "x86_64")]
mod sha;

use sha2::block_api::compress256;

#[cfg(target_arch = "x86_64")]
use crate::processor::Sha;

const BLOCK_BYTES: usize = 64;
type Block = [u8; BLOCK_BYTES];
type State = [u32; 8];

/// A stream, hashed as it comes.
#[derive(Clone)]
pub struct Sha256 {
    state: State,
    n_bytes: u64,
    /// The bytes behind the last whole block, at its start.
    begun: Block,
}

/// Bytes that hashes have yet to take in, of a stream each: a few at a time beside other work, and what is left of them by
/// [`Streams::finish`].
#[derive(Default)]
pub struct Streams<'b>(Vec<Stream<'b>>);

/// Whole blocks, at least one, that a state has yet to take in.
pub(crate) struct Stream<'b> {
    state: &'b mut State,
    blocks: &'b [Block],
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    pub fn new() -> Self {
        // FIPS 180-4, 5.3.3.
        let state =
            [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19];
        Self { state, n_bytes: 0, begun: [0; BLOCK_BYTES] }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        let blocks = self.take_ends(bytes);
        compress256(&mut self.state, blocks);
    }

    /// Hashes `bytes` and, meanwhile, `other_bytes` of another stream.
    pub fn update_with(&mut self, bytes: &[u8], other: &mut Self, other_bytes: &[u8]) {
        let mut streams = Streams::default();
        streams.push(self, bytes);
        streams.push(other, other_bytes);
        streams.finish();
    }

    pub fn finish(mut self) -> [u8; 32] {
        let n_bits = self.n_bytes.wrapping_mul(8);
        let n_begun = self.n_bytes as usize % BLOCK_BYTES;
        let n_zeros = (2 * BLOCK_BYTES - 9 - n_begun) % BLOCK_BYTES; // so that a block ends with the number of bits
        let mut padding = [0; BLOCK_BYTES];
        padding[0] = 0x80;
        self.update(&padding[..1 + n_zeros]);
        self.update(&n_bits.to_be_bytes());
        let mut digest = [0; 32];
        digest.as_chunks_mut().0.iter_mut().zip(self.state).for_each(|(place, word)| *place = word.to_be_bytes());
        digest
    }

    /// Takes in what ends the block that was begun and what begins the last one. Returns the whole blocks between, which the
    /// caller compresses.
    fn take_ends<'b>(&mut self, bytes: &'b [u8]) -> &'b [Block] {
        let n_begun = self.n_bytes as usize % BLOCK_BYTES;
        self.n_bytes += bytes.len() as u64;
        let n_lacking = (BLOCK_BYTES - n_begun) % BLOCK_BYTES;
        let (end, rest) = bytes.split_at(n_lacking.min(bytes.len()));
        self.begun[n_begun..n_begun + end.len()].copy_from_slice(end);
        if n_begun + end.len() == BLOCK_BYTES {
            compress256(&mut self.state, &[self.begun]);
        }
        let (blocks, begin) = rest.as_chunks();
        self.begun[..begin.len()].copy_from_slice(begin);
        blocks
    }
}

impl<'b> Streams<'b> {
    /// Adds `bytes` for `hash`, which has taken them in when [`Streams::finish`] has returned.
    pub fn push(&mut self, hash: &'b mut Sha256, bytes: &'b [u8]) {
        let blocks = hash.take_ends(bytes);
        if !blocks.is_empty() {
            self.0.push(Stream { state: &mut hash.state, blocks });
        }
    }

    /// Those that are left.
    pub(crate) fn left(&mut self) -> &mut [Stream<'b>] {
        self.0.retain(|stream| !stream.blocks.is_empty());
        &mut self.0
    }

    /// Lets all hashes take in what is left, two at once as long as there are two.
    pub fn finish(mut self) {
        while let [one, two, ..] = self.left() {
            let n_blocks = one.blocks.len().min(two.blocks.len());
            let blocks = [one.take(n_blocks), two.take(n_blocks)];
            compress_both([one.state, two.state], blocks);
        }
        if let [one] = self.left() {
            compress256(one.state, one.blocks);
        }
    }
}

impl<'b> Stream<'b> {
    fn take(&mut self, n_blocks: usize) -> &'b [Block] {
        let (taken, left) = self.blocks.split_at(n_blocks);
        self.blocks = left;
        taken
    }
}

/// Compresses as many blocks of one stream as of the other.
fn compress_both(states: [&mut State; 2], blocks: [&[Block]; 2]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(sha) = Sha::detect() {
        return sha::compress_both(sha, states, blocks);
    }
    states.into_iter().zip(blocks).for_each(|(state, blocks)| compress256(state, blocks));
}

pub fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use sha2::Digest;

    use super::*;

    #[test]
    fn every_length_of_a_last_block_is_padded() {
        let bytes = [7; 3 * BLOCK_BYTES];
        for n_bytes in 0..bytes.len() {
            let mut hash = Sha256::new();
            hash.update(&bytes[..n_bytes]);
            assert_eq!(hash.finish()[..], sha2::Sha256::digest(&bytes[..n_bytes])[..], "{n_bytes} bytes");
        }
    }

    #[test]
    fn streams_of_any_number_and_lengths_are_each_hashed_whole() {
        let bytes: Vec<u8> = (0..5_000u32).map(|place| (place % 251) as u8).collect();
        for lengths in [&[][..], &[640], &[1, 5_000], &[4_000, 64, 900], &[0, 63, 128, 5_000, 333]] {
            let mut hashes = vec![Sha256::new(); lengths.len()];
            for _ in 0..2 {
                let mut streams = Streams::default();
                hashes.iter_mut().zip(lengths).for_each(|(hash, &length)| streams.push(hash, &bytes[..length]));
                streams.finish();
            }
            for (hash, &length) in hashes.into_iter().zip(lengths) {
                assert_eq!(hash.finish()[..], sha2::Sha256::digest(bytes[..length].repeat(2))[..], "of {lengths:?}");
            }
        }
    }
}
