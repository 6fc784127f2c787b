//! The reader of tokenizer.words.

#![no_main]

#[path = "../../tests/common/fuzzed_readers.rs"]
#[allow(dead_code)] // the other targets'
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::words(data));
