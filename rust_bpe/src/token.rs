//! The unit of the output: a token id, and the array type that holds it.

use bytemuck::NoUninit;

/// A token's number. Its place in the vocabulary, not its merge rank.
pub type TokenId = u32;

/// The longest pre-token, in bytes. A longer one ends in [`crate::Error::PreTokenTooLong`] everywhere: it bounds
/// what a stream must hold and keeps every offset inside a word in 32 bits.
pub const MAX_PRETOKEN_BYTES: usize = 64 << 20;

/// The most ids, and the most merges, of a vocabulary. Three ids fit 63 bits, which keeps an entry of the pair table in one
/// word; the largest published vocabularies have a quarter million.
pub const MAX_VOCAB_SIZE: usize = (1 << 21) - 1;

/// The integer type of a token array on disk and in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    U16,
    U32,
}

impl Dtype {
    /// The narrowest type that holds every id up to `largest_id` (special tokens included): u16 below 65,536.
    pub fn for_largest_id(largest_id: TokenId) -> Self {
        if largest_id <= u16::MAX as TokenId { Dtype::U16 } else { Dtype::U32 }
    }

    /// numpy's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::U16 => "uint16",
            Dtype::U32 => "uint32",
        }
    }
}

/// The integer type of an array of ids.
pub trait Id: NoUninit + Default + Send + Sync {
    const LARGEST: TokenId;

    /// The id, which is at most [`Id::LARGEST`].
    fn from_id(id: TokenId) -> Self;

    fn to_id(self) -> TokenId;

    /// The id with its bytes in little-endian order, wherever that is another one.
    fn to_le(self) -> Self;
}

impl Id for u16 {
    const LARGEST: TokenId = u16::MAX as TokenId;

    #[inline]
    fn from_id(id: TokenId) -> Self {
        id as u16
    }

    fn to_id(self) -> TokenId {
        self.into()
    }

    fn to_le(self) -> Self {
        u16::to_le(self)
    }
}

impl Id for u32 {
    const LARGEST: TokenId = u32::MAX;

    #[inline]
    fn from_id(id: TokenId) -> Self {
        id
    }

    fn to_id(self) -> TokenId {
        self
    }

    fn to_le(self) -> Self {
        u32::to_le(self)
    }
}
