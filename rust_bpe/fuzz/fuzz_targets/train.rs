//! The trainer against its slow twin.

#![no_main]

#[path = "../../tests/common/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::train(data));
