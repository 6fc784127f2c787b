//! Scanners of patterns against their regular expressions.

#![no_main]

#[path = "../../tests/common/fuzzed_text.rs"]
#[allow(dead_code)] // the other targets'
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::scanner(data));
