//! The trainer against its slow twin, and the properties that users rely on.

mod common;
#[path = "common/fuzzed.rs"]
mod fuzzed;

use std::collections::HashMap;

use common::Generator;
use rust_bpe::monitor::Monitor;
use rust_bpe::train::{Alphabet, Stop, Ties, TrainOptions, Trained, train};
use rust_bpe::words::{WordCounter, Words};
use rust_bpe::{Error, reference};

const TIES: [Ties; 3] = [Ties::Bytes, Ties::Ids, Ties::HuggingFace];

fn words(counts: &[(Vec<u8>, u64)]) -> Words {
    Words::from_counts(counts.iter().map(|(word, count)| (word, *count))).expect("counts that fit 64 bits")
}

fn trained(words: &Words, alphabet: &Alphabet, options: &TrainOptions) -> Trained {
    train(words, alphabet, options, &Monitor::new()).expect("valid options")
}

fn check_against_reference(words: &Words, alphabet: &Alphabet, options: &TrainOptions) {
    let slow = reference::train(words, alphabet, options).expect("valid options");
    assert_eq!(trained(words, alphabet, options), slow, "{options:?} {:?}", words.iter().collect::<Vec<_>>());
}

/// Words over few letters, so that runs, overlaps and ties are everywhere.
fn random_counts(
    random: &mut Generator,
    n_letters: u64,
    n_words: u64,
    max_len: u64,
    max_count: u64,
) -> Vec<(Vec<u8>, u64)> {
    // From all over the byte range, some of them invisible, so that the tie rules disagree.
    const LETTERS: &[u8] = b"a \n\x00\xffb\xad!\x80c";
    (0..random.below(n_words + 1))
        .map(|_| {
            let word = (0..random.below(max_len + 1)).map(|_| LETTERS[random.below(n_letters) as usize]).collect();
            (word, random.below(max_count + 1))
        })
        .collect()
}

#[test]
fn merges_and_encodings_equal_the_reference() {
    let mut random = Generator::new(1);
    for round in 0..600 {
        let n_letters = 1 + random.below(10);
        let (n_words, max_len) = (1 + random.below(30), 1 + random.below(24));
        let max_count = [1, 3, 20, 1 << 40][round % 4];
        let words = words(&random_counts(&mut random, n_letters, n_words, max_len, max_count));
        let options = TrainOptions {
            ties: TIES[round % 3],
            min_frequency: [0, 1, 2, 7][random.below(4) as usize],
            max_token_bytes: [None, None, Some(1), Some(2), Some(5)][random.below(5) as usize],
            threads: 1 + random.below(3) as usize,
            ..TrainOptions::new(256 + random.below(60) as usize)
        };
        check_against_reference(&words, &Alphabet::Bytes, &options);
    }
}

#[test]
fn larger_texts_equal_the_reference_past_the_lowered_threshold() {
    let mut random = Generator::new(2);
    for ties in TIES {
        let words = words(&random_counts(&mut random, 10, 300, 12, 1000));
        for vocab_size in [266, 300, 600] {
            check_against_reference(&words, &Alphabet::Bytes, &TrainOptions { ties, ..TrainOptions::new(vocab_size) });
        }
    }
}

#[test]
fn characters_equal_the_reference() {
    let mut random = Generator::new(3);
    let letters: Vec<char> = "aé \u{10ffff}漢\0zß".chars().collect();
    for round in 0..150 {
        let counts: Vec<(String, u64)> = (0..1 + random.below(12))
            .map(|_| ((0..random.below(30)).map(|_| letters[random.below(8) as usize]).collect(), 1 + random.below(5)))
            .collect();
        let words = Words::from_counts(counts).expect("small counts");
        let alphabet = Alphabet::chars_of(&words).expect("text");
        let options = TrainOptions {
            ties: TIES[round % 3],
            max_token_bytes: [None, Some(4)][round % 2],
            ..TrainOptions::new(alphabet.len() + 20)
        };
        check_against_reference(&words, &alphabet, &options);
    }
}

#[test]
fn overlapping_pairs_are_counted_at_every_place_and_merged_from_the_left() {
    // `aaa` holds `aa` twice, so 2 x 2 = 4 of them beat 3 of `bc`.
    let words = Words::from_counts([("aaa", 2), ("bc", 3)]).expect("small counts");
    let trained = trained(&words, &Alphabet::Bytes, &TrainOptions::new(257));
    let [a, b, c] = b"abc".map(u32::from);
    assert_eq!(trained.merges, [(a, a)]);
    assert_eq!(trained.encodings.iter().collect::<Vec<_>>(), [&[b, c], &[256, a]]);
}

#[test]
fn counts_beyond_32_bits_are_exact() {
    let big = u64::from(u32::MAX);
    for (ab, cd) in [(big, big + 1), (big - 1, big), (big + 2, big + 1), (1 << 62, (1 << 62) - 1)] {
        let words = Words::from_counts([("ab", ab), ("cd", cd), ("x", 1)]).expect("counts that fit");
        let first = if ab > cd { b"ab" } else { b"cd" }.map(u32::from);
        assert_eq!(trained(&words, &Alphabet::Bytes, &TrainOptions::new(257)).merges, [(first[0], first[1])]);
        check_against_reference(&words, &Alphabet::Bytes, &TrainOptions::new(300));
    }
}

#[test]
fn counts_that_no_sum_can_hold_are_refused() {
    let error = Words::from_counts([("ab", u64::MAX / 2), ("cd", 2)]).expect_err("over the limit");
    assert!(error.to_string().contains("64-bit"), "{error}");
    assert!(Words::from_counts([("ab", u64::MAX), ("ab", u64::MAX)]).is_err());
}

#[test]
fn the_order_of_the_words_does_not_matter() {
    let mut random = Generator::new(4);
    for ties in TIES {
        let mut counts = random_counts(&mut random, 6, 200, 12, 50);
        let options = TrainOptions { ties, ..TrainOptions::new(600) };
        let forward = trained(&words(&counts), &Alphabet::Bytes, &options);
        for _ in 0..3 {
            random.shuffle(&mut counts);
            assert_eq!(trained(&words(&counts), &Alphabet::Bytes, &options).merges, forward.merges);
        }
    }
}

#[test]
fn nothing_to_merge_stops_at_once() {
    for counts in [vec![], vec![(vec![], 5)], vec![(b"a".to_vec(), 5)], vec![(b"ab".to_vec(), 0)]] {
        let trained = trained(&words(&counts), &Alphabet::Bytes, &TrainOptions::new(1000));
        assert_eq!((trained.merges.len(), trained.stop), (0, Stop::NoPairs));
    }
    let words = words(&[(b"ab".to_vec(), 5)]);
    assert_eq!(trained(&words, &Alphabet::Bytes, &TrainOptions::new(256)).stop, Stop::Size);
}

#[test]
fn impossible_settings_name_both_numbers() {
    let words = words(&[(b"ab".to_vec(), 5)]);
    let fail =
        |options| train(&words, &Alphabet::Bytes, &options, &Monitor::new()).expect_err("impossible").to_string();
    let message = fail(TrainOptions::new(255));
    assert!(message.contains("255") && message.contains("256"), "{message}");
    assert!(fail(TrainOptions::new(usize::MAX)).contains(&usize::MAX.to_string()));
    let not_utf8 = Words::from_counts([(b"\xff", 1)]).expect("small counts");
    assert!(matches!(Alphabet::chars_of(&not_utf8), Err(Error::Setting(_))));
    let missing = train(&words, &Alphabet::Chars(vec!['a']), &TrainOptions::new(10), &Monitor::new());
    assert!(missing.expect_err("b is missing").to_string().contains("'b'"));
}

#[test]
fn a_cancelled_job_ends() {
    let mut random = Generator::new(5);
    let words = words(&random_counts(&mut random, 10, 1000, 20, 10));
    let monitor = Monitor::new();
    monitor.cancel();
    let result = train(&words, &Alphabet::Bytes, &TrainOptions::new(5000), &monitor);
    assert!(matches!(result, Err(Error::Cancelled)));
}

#[test]
fn counters_join_to_the_counts_of_a_map() {
    let mut random = Generator::new(6);
    for _ in 0..20 {
        let mut counters: Vec<WordCounter> = (0..1 + random.below(4)).map(|_| WordCounter::new()).collect();
        let mut expected = HashMap::new();
        for _ in 0..random.below(20_000) {
            let len = 1 + random.below(40) as usize;
            let n_letters = if len < 6 { 4 } else { 1 };
            let word: Vec<u8> = (0..len).map(|_| b"abc\0"[random.below(n_letters) as usize]).collect();
            let count = 1 + random.below(3);
            let counter = random.below(counters.len() as u64) as usize;
            counters[counter].add_word(&word, count);
            *expected.entry(word).or_insert(0) += count;
        }
        let words = Words::merge(&counters, 1 + random.below(3) as usize).expect("small counts");
        assert!(words.iter().map(|(_, count)| count).is_sorted_by(|a, b| a >= b));
        assert_eq!((words.len(), words.n_pretokens()), (expected.len(), expected.values().sum()));
        assert_eq!(words.iter().map(|(word, count)| (word.to_vec(), count)).collect::<HashMap<_, _>>(), expected);
    }
}

#[test]
fn what_the_fuzz_target_checks_holds_for_random_inputs() {
    let mut random = Generator::new(7);
    for _ in 0..300 {
        let n_letters = 2 + random.below(12);
        let len = random.below(400) as usize;
        let input: Vec<u8> = (0..len)
            .map(|i| match i {
                0..5 => random.below(256) as u8,
                _ if random.below(30) == 0 => random.below(256) as u8,
                _ => b"\0ab\xc3\xa9 c\x01\xe6\xbc\xa2dz"[random.below(n_letters) as usize],
            })
            .collect();
        fuzzed::train(&input);
    }
}

#[test]
fn words_come_in_the_same_order_however_they_were_counted() {
    let mut random = Generator::new(8);
    let words: Vec<Vec<u8>> = (0..30_000)
        .map(|_| (0..1 + random.below(40)).map(|_| b"ab"[random.below(2) as usize]).collect::<Vec<u8>>())
        .collect();
    let count = |n_counters: usize| {
        let mut counters: Vec<WordCounter> = (0..n_counters).map(|_| WordCounter::new()).collect();
        words.iter().enumerate().for_each(|(i, word)| counters[i * i % n_counters].add_word(word, 1));
        let words = Words::merge(&counters, n_counters).expect("small counts");
        words.iter().map(|(word, count)| (word.to_vec(), count)).collect::<Vec<_>>()
    };
    let alone = count(1);
    assert!(count(2) == alone && count(5) == alone);
}

#[test]
fn pairs_at_many_places_are_joined_by_several_threads_alike() {
    let mut random = Generator::new(9);
    let words = words(&random_counts(&mut random, 3, 40_000, 14, 100));
    let options = |threads| TrainOptions { threads, ..TrainOptions::new(256 + 40) };
    let alone = trained(&words, &Alphabet::Bytes, &options(1));
    assert_eq!(alone, reference::train(&words, &Alphabet::Bytes, &options(1)).expect("valid options"));
    for threads in [2, 3, 7] {
        assert_eq!(trained(&words, &Alphabet::Bytes, &options(threads)), alone);
    }
}

#[test]
fn pairs_counted_anew_by_several_threads_are_the_same() {
    let mut random = Generator::new(10);
    let mut word = || (0..2 + random.below(12)).map(|_| b'a' + random.below(26) as u8).collect();
    let words = words(&(0..30_000).map(|i| (word(), 1 + 3000 / (i + 1))).collect::<Vec<_>>());
    // Tokens of at most two bytes: the frequent pairs run out, and the rarer ones are looked for again and again.
    let options = |threads| TrainOptions { threads, max_token_bytes: Some(2), ..TrainOptions::new(5000) };
    let alone = trained(&words, &Alphabet::Bytes, &options(1));
    assert!(alone.merges.len() > 300 && alone.stop == Stop::NoPairs);
    for threads in [2, 3] {
        assert_eq!(trained(&words, &Alphabet::Bytes, &options(threads)), alone);
    }
}
