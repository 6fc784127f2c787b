//! Heads of queries, keys and values to mixed values and back.

#![no_main]

#[path = "../../tests/common/fuzzed_attention.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::attention(data));
