//! Joining the counters of several threads: the words of a range of hashes at a time, which lie together in every table.
//!
//! The words come out by length class and hash, so in the same order with any number of threads.

use rustc_hash::FxHashMap;

use super::key::Key;
use super::table::Table;
use super::{WordCounter, Words};
use crate::parallel;

/// So many words are sorted at a time: 160 KB, a third of a second-level cache.
const WORDS_PER_SHARD: usize = 4096;

/// The words of all counters, each once; those that never counted are left out.
pub fn by_shards(counters: &[WordCounter], threads: usize) -> Vec<Words> {
    let n_words: usize = counters.iter().map(WordCounter::len).sum();
    let n_shards = n_words.div_ceil(WORDS_PER_SHARD).max(1);
    let n_threads = threads.clamp(1, n_shards);
    let work = |thread: usize| {
        let (mut short, mut medium) = (Words::default(), Words::default());
        for shard in n_shards * thread / n_threads..n_shards * (thread + 1) / n_threads {
            join_shard(counters.iter().map(|counter| &counter.short), shard, n_shards, &mut short);
            join_shard(counters.iter().map(|counter| &counter.medium), shard, n_shards, &mut medium);
        }
        (short, medium)
    };
    let parts: Vec<(Words, Words)> = parallel::map(0..n_threads, work);
    let (short, medium): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    short.into_iter().chain(medium).chain([long_words(counters)]).collect()
}

fn join_shard<'c, K: Key + 'c>(
    tables: impl Iterator<Item = &'c Table<K>>,
    shard: usize,
    n_shards: usize,
    words: &mut Words,
) {
    let mut keys = Vec::new();
    for table in tables {
        table.for_each_in_shard(shard, n_shards, |hash, key, count| keys.push((hash, key, count)));
    }
    keys.sort_unstable_by_key(|&(hash, key, _)| (hash, key));
    for same in keys.chunk_by(|a, b| a.1 == b.1) {
        let count = same.iter().fold(0, |total: u64, &(_, _, count)| total.saturating_add(count));
        if count > 0 {
            same[0].1.with_bytes(|word| words.push(word, count));
        }
    }
}

fn long_words(counters: &[WordCounter]) -> Words {
    let mut counts: FxHashMap<&[u8], u64> = FxHashMap::default();
    for (word, &(count, _)) in counters.iter().flat_map(|counter| &counter.long) {
        let total = counts.entry(word).or_default();
        *total = total.saturating_add(count);
    }
    let mut counts: Vec<_> = counts.into_iter().filter(|&(_, count)| count > 0).collect();
    counts.sort_unstable_by_key(|&(word, _)| word);
    let mut words = Words::default();
    counts.into_iter().for_each(|(word, count)| words.push(word, count));
    words
}
