//! Byte-level BPE at the speed of the machine: from text files to token arrays.
//!
//! The modules stand in the order of the data:
//! [`corpus`] (inputs, documents, safe blocks) -> [`pretokenize`] and [`special`] -> [`words`] (counting) ->
//! [`train`] (merges) -> [`vocabulary`] (tokens, merges, files) -> [`encode`] (ids and back) -> [`tokenize`]
//! (the whole job). [`reference`] is the slow twin that every fast path is tested against. [`kernels`] are of
//! the training that follows.

pub mod checksum;
pub mod corpus;
pub mod encode;
pub mod error;
pub mod kernels;
mod memory;
mod merge;
pub mod monitor;
mod parallel;
pub mod pretokenize;
mod processor;
pub mod reference;
pub mod special;
pub mod token;
pub mod tokenize;
pub mod train;
pub mod vocabulary;
pub mod words;

#[cfg(feature = "python")]
mod python;

pub use error::{Error, Result};
pub use token::TokenId;
