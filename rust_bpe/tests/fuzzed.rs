//! What the fuzz targets check holds for kept inputs: seeds written by hand, and those that fuzzing found to go new ways.
//!
//! `fuzzed/TARGET.txt` has an input a line, escaped as in Rust's byte strings; `fuzz/inputs.py` writes and reads it.

#[path = "common/fuzzed_attention.rs"]
mod attention;
#[path = "common/fuzzed_checksum.rs"]
mod checksum;
#[allow(dead_code)] // what other tests use
mod common;
#[path = "common/fuzzed_corpus.rs"]
mod inputs;
#[path = "common/fuzzed_logits.rs"]
mod logits;
#[path = "common/fuzzed_readers.rs"]
mod readers;
#[path = "common/fuzzed_text.rs"]
mod text;
#[path = "common/fuzzed.rs"]
mod train;

fn check(kept: &str, target: fn(&[u8])) {
    let mut n_inputs = 0;
    for line in kept.lines().filter(|line| !line.is_empty()) {
        let input = unescaped(line.as_bytes());
        let outcome = std::panic::catch_unwind(|| target(&input));
        assert!(outcome.is_ok(), "{line}");
        n_inputs += 1;
    }
    assert!(n_inputs > 0);
}

fn check_random(n_inputs: usize, target: fn(&[u8])) {
    let mut generator = common::Generator::new(1);
    for _ in 0..n_inputs {
        let n_bytes = generator.below(3000);
        target(&(0..n_bytes).map(|_| generator.below(256) as u8).collect::<Vec<_>>());
    }
}

fn unescaped(line: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line;
    while let [first, after @ ..] = rest {
        let (byte, left) = match (first, after) {
            (b'\\', [b'x', high, low, left @ ..]) => {
                let digit = |hex: &u8| char::from(*hex).to_digit(16).expect("two hexadecimal digits") as u8;
                (digit(high) << 4 | digit(low), left)
            }
            (b'\\', [b'n', left @ ..]) => (b'\n', left),
            (b'\\', [b'r', left @ ..]) => (b'\r', left),
            (b'\\', [b't', left @ ..]) => (b'\t', left),
            (b'\\', [same, left @ ..]) => (*same, left),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = left;
    }
    bytes
}

#[test]
fn escaped_inputs_are_read_back() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(unescaped(all.escape_ascii().to_string().as_bytes()), all);
}

#[test]
fn the_trainer_equals_its_twin() {
    check(include_str!("fuzzed/train.txt"), train::train);
}

#[test]
fn scanners_equal_their_expressions() {
    check(include_str!("fuzzed/scanner.txt"), text::scanner);
}

#[test]
fn a_users_expression_splits_or_gives_up() {
    check(include_str!("fuzzed/regex.txt"), text::regex);
}

#[test]
fn encoder_and_streams_equal_their_twin() {
    check(include_str!("fuzzed/encoding.txt"), text::encoding);
}

#[test]
fn a_tokenizer_json_is_refused_or_holds() {
    check(include_str!("fuzzed/huggingface.txt"), readers::huggingface);
}

#[test]
fn a_tiktoken_file_is_refused_or_holds() {
    check(include_str!("fuzzed/tiktoken.txt"), readers::tiktoken);
}

#[test]
fn files_of_gpt2_are_refused_or_hold() {
    check(include_str!("fuzzed/gpt2.txt"), readers::gpt2);
}

#[test]
fn kept_words_are_refused_or_hold() {
    check(include_str!("fuzzed/words.txt"), readers::words);
}

#[test]
fn two_streams_are_hashed_as_each_alone() {
    check(include_str!("fuzzed/checksum.txt"), checksum::checksum);
    check_random(300, checksum::checksum);
}

#[test]
fn heads_are_mixed_as_their_definition_says() {
    check_random(300, attention::attention);
}

#[test]
fn rows_of_logits_give_what_their_definition_says() {
    check(include_str!("fuzzed/logits.txt"), logits::logits);
    check_random(2_000, logits::logits);
}

#[test]
fn inputs_are_refused_or_give_the_same_documents_in_any_blocks() {
    check(include_str!("fuzzed/corpus.txt"), inputs::corpus);
}
