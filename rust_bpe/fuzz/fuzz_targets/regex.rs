//! A user's regular expression.

#![no_main]

#[path = "../../tests/common/fuzzed_text.rs"]
#[allow(dead_code)] // the other targets'
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::regex(data));
