//! SHA-256 of two streams at once.

#![no_main]

#[path = "../../tests/common/fuzzed_checksum.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::checksum(data));
