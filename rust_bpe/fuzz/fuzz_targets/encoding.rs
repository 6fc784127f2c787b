//! The encoder and its streams against the slow twin.

#![no_main]

#[path = "../../tests/common/fuzzed_text.rs"]
#[allow(dead_code)] // the other targets'
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::encoding(data));
