//! Readers of texts, JSON lines and packings.

#![no_main]

#[path = "../../tests/common/fuzzed_corpus.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::corpus(data));
