//! Rows of logits to losses and gradients.

#![no_main]

#[path = "../../tests/common/fuzzed_logits.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::logits(data));
