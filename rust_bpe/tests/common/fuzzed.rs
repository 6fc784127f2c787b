//! What the fuzz targets check of an input. The tests check it too, of inputs made from seeds.

use rust_bpe::monitor::Monitor;
use rust_bpe::reference;
use rust_bpe::train::{self, Alphabet, Ties, TrainOptions};
use rust_bpe::words::{WordCounter, Words};

/// Trains on the words that `data` spells, and compares with the slow trainer. The first five bytes choose the options;
/// a zero byte ends a word, and the byte behind it is the word's count, a large one for a large byte.
pub fn train(data: &[u8]) {
    let Some((&[ties, n_merges, min_frequency, max_token_bytes, threads], data)) = data.split_first_chunk() else {
        return;
    };
    let mut counters = [WordCounter::new(), WordCounter::new()];
    let mut rest = &data[..data.len().min(2000)];
    while !rest.is_empty() {
        let len = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
        let count =
            rest.get(len + 1).map_or(1, |&byte| if byte < 200 { byte.into() } else { 1 << (byte - 200).min(50) });
        counters[usize::from(count % 2 == 0)].add_word(&rest[..len], count);
        rest = rest.get(len + 2..).unwrap_or_default();
    }
    let words = Words::merge(&counters, 2).expect("2,000 bytes, at most 2^50 times");
    let options = TrainOptions {
        ties: [Ties::Bytes, Ties::Ids, Ties::HuggingFace][usize::from(ties % 3)],
        min_frequency: u64::from(min_frequency % 8),
        max_token_bytes: (max_token_bytes % 16 != 0).then_some(usize::from(max_token_bytes % 16)),
        threads: usize::from(threads % 4).max(1),
        ..TrainOptions::new(256 + usize::from(n_merges))
    };
    let alphabets = [Some(Alphabet::Bytes), Alphabet::chars_of(&words).ok()];
    for alphabet in alphabets.into_iter().flatten() {
        let fast = train::train(&words, &alphabet, &options, &Monitor::new());
        let slow = reference::train(&words, &alphabet, &options);
        match (fast, slow) {
            (Ok(fast), Ok(slow)) => assert_eq!(fast, slow),
            (fast, slow) => assert_eq!(fast.map_err(|e| e.to_string()), slow.map_err(|e| e.to_string())),
        }
    }
}
