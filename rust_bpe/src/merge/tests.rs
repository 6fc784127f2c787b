//! All ways agree with the rule, over random tables: also ones that no training would make.

use super::*;
use crate::reference::encode::{MergeMap, merge};
use std::ops::Range;

/// xorshift64*: enough for tests, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }
}

struct Table {
    pairs: PairTable,
    results: Vec<TokenId>,
    map: MergeMap,
    lengths: Vec<usize>,
    symbols: Vec<TokenId>,
}

impl Ranks for Table {
    fn rank(&self, left: TokenId, right: TokenId) -> u32 {
        self.pairs.rank(left, right)
    }

    fn place(&self, left: TokenId, right: TokenId) -> u32 {
        self.pairs.place(left, right)
    }

    fn rank_at(&self, place: u32, left: TokenId, right: TokenId) -> u32 {
        self.pairs.rank_at(place, left, right)
    }

    fn result(&self, rank: u32) -> TokenId {
        self.results[rank as usize]
    }

    fn in_order(&self) -> bool {
        let merges: Vec<Merge> = self
            .results
            .iter()
            .zip(0..)
            .map(|(&result, rank)| {
                let (&(left, right), _) =
                    self.map.iter().find(|(_, found)| found.0 == rank).expect("a merge of each rank");
                Merge { left, right, result }
            })
            .collect();
        in_order(&merges)
    }
}

impl Symbols for Table {
    fn len(&self) -> usize {
        self.symbols.len()
    }

    fn copy(&self, range: Range<usize>, out: &mut Vec<TokenId>) {
        out.clear();
        out.extend_from_slice(&self.symbols[range]);
    }

    fn n_symbols(&self, token: TokenId) -> usize {
        self.lengths[token as usize]
    }
}

/// `n_symbols` symbols and `n_merges` merges of random tokens made before; ranks in that order, or in any.
fn table(random: &mut Random, n_symbols: usize, n_merges: usize, in_order: bool, first_id: u32) -> Table {
    let mut ids: Vec<TokenId> = (first_id..first_id + n_symbols as u32).collect();
    let mut lengths = vec![1; first_id as usize + n_symbols];
    let mut merges = Vec::new();
    for _ in 0..n_merges {
        let left = ids[random.below(ids.len())];
        let right = if random.below(4) == 0 { left } else { ids[random.below(ids.len())] };
        if merges.iter().all(|&(pair, _)| pair != (left, right)) {
            let result = lengths.len() as TokenId;
            lengths.push(lengths[left as usize] + lengths[right as usize]);
            ids.push(result);
            merges.push(((left, right), result));
        }
    }
    if !in_order {
        for index in (1..merges.len()).rev() {
            merges.swap(index, random.below(index + 1));
        }
    }
    let mut pairs = PairTable::with_capacity(0);
    let mut map = MergeMap::new();
    for (&((left, right), result), rank) in merges.iter().zip(0..) {
        pairs.insert(left, right, rank);
        map.insert((left, right), (rank, result));
    }
    let results = merges.iter().map(|&(_, result)| result).collect();
    Table { pairs, results, map, lengths, symbols: Vec::new() }
}

fn agree(table: &Table, merger: &mut Merger, long: &mut Long) {
    let expected = merge(&table.symbols, &table.map);
    if table.symbols.len() <= MAX_SMALL {
        let mut small = table.symbols.clone();
        let n_tokens = small::merge(&mut small, table);
        assert_eq!(small[..n_tokens], expected, "small");
        let mut merged = table.symbols.clone();
        merger.merge(&mut merged, table);
        assert_eq!(merged, expected, "small, by what this processor has");
    }
    if table.symbols.len() <= MAX_SCAN {
        let mut scanned = table.symbols.clone();
        let n_tokens = merger.scan.merge(&mut scanned, table);
        assert_eq!(scanned[..n_tokens], expected, "scan");
    }
    if table.symbols.len() > MAX_SMALL {
        let mut merged = table.symbols.clone();
        merger.merge(&mut merged, table);
        assert_eq!(merged, expected, "by length");
    }
    let mut heaped = table.symbols.clone();
    merger.heap.merge(&mut heaped, table);
    assert_eq!(heaped, expected, "heap");
    if table.in_order() {
        let mut bucketed = table.symbols.clone();
        merger.buckets.merge(&mut bucketed, table);
        assert_eq!(bucketed, expected, "buckets");
        let mut run = table.symbols.clone();
        if Runs::default().merge(&mut run, table) {
            assert_eq!(run, expected, "runs");
        } else {
            assert_eq!(run, table.symbols, "no runs");
        }
    }
    let mut joined: Vec<TokenId> = vec![7];
    long.merge(table, table, merger, &mut joined);
    assert_eq!(joined[1..], expected, "long");
}

#[test]
fn all_ways_agree_with_the_rule() {
    let mut random = Random(1);
    let (mut merger, mut long) = (Merger::default(), Long::default());
    for round in 0..600 {
        let n_symbols = 1 + random.below(if round % 3 == 0 { 2 } else { 6 });
        let n_merges = random.below(40);
        let first_id = if round % 5 == 0 { 250 } else { 0 };
        let mut table = table(&mut random, n_symbols, n_merges, round % 2 == 0, first_id);
        let length = random.below(if round % 10 == 0 { 1200 } else { 60 });
        table.symbols = (0..length).map(|_| first_id + random.below(n_symbols) as u32).collect();
        agree(&table, &mut merger, &mut long);
    }
}

#[test]
fn sequences_merged_together_give_what_each_gives_alone() {
    let mut random = Random(5);
    let mut batch = Batch::default();
    for round in 0..400 {
        batch.avx2 = if round % 4 == 0 { None } else { Avx2::detect() };
        let first_id = [0, 250, 1000][round % 3];
        let n_symbols = 1 + random.below(5);
        let n_merges = random.below(60);
        let table = table(&mut random, n_symbols, n_merges, round % 2 == 0, first_id);
        let mut sequences: Vec<Vec<TokenId>> = Vec::new();
        batch.clear();
        for _ in 0..random.below(LANES + 1) {
            let length = random.below(MAX_SMALL + 1);
            let sequence: Vec<TokenId> = (0..length).map(|_| first_id + random.below(n_symbols) as u32).collect();
            let lane = batch.add();
            sequence.iter().for_each(|&symbol| lane.push(symbol));
            sequences.push(sequence);
        }
        batch.merge(&table);
        for (lane, sequence) in sequences.iter().enumerate() {
            assert_eq!(batch.tokens(lane), merge(sequence, &table.map));
        }
    }
}

#[test]
fn sequences_of_a_few_runs_agree_with_the_rule() {
    let mut random = Random(6);
    let (mut merger, mut long) = (Merger::default(), Long::default());
    let mut n_runs = 0;
    for round in 0..300 {
        let n_merges = random.below(40);
        let mut table = table(&mut random, 1 + round % 3, n_merges, round % 4 != 0, 0);
        for _ in 0..1 + random.below(6) {
            let symbol = random.below(1 + round % 3) as u32;
            let length = 1 + random.below(if round % 2 == 0 { 20 } else { 90 });
            table.symbols.extend(std::iter::repeat_n(symbol, length));
        }
        n_runs += usize::from(table.in_order() && Runs::default().merge(&mut table.symbols.clone(), &table));
        agree(&table, &mut merger, &mut long);
    }
    assert!(n_runs > 100, "{n_runs}");
}

#[test]
fn runs_periods_and_chains_of_falling_ranks_agree_with_the_rule() {
    let mut random = Random(2);
    let (mut merger, mut long) = (Merger::default(), Long::default());
    for round in 0..40 {
        let mut table = table(&mut random, 3, 30, round % 2 == 0, 0);
        for period in [vec![0], vec![0, 1], vec![0, 0, 1], vec![0, 1, 2, 1]] {
            table.symbols = period.iter().copied().cycle().take(300 + random.below(900)).collect();
            agree(&table, &mut merger, &mut long);
        }
    }
    // Ranks that fall to the right: which pairs merge is decided at the far end, across every border between pieces.
    let n = 900;
    let mut falling = table(&mut random, n, 0, true, 0);
    for left in 0..n as u32 - 1 {
        let rank = n as u32 - 2 - left;
        falling.pairs.insert(left, left + 1, rank);
        falling.map.insert((left, left + 1), (rank, n as u32 + rank));
    }
    falling.results = (0..n as u32 - 1).map(|rank| n as u32 + rank).collect();
    falling.lengths.extend(vec![2; n]);
    for length in [256, 257, 600, n - 1, n] {
        falling.symbols = (0..length as u32).collect();
        agree(&falling, &mut merger, &mut long);
    }
}

#[test]
fn tokens_as_long_as_the_text_take_no_quadratic_time() {
    // Each merge doubles the token before: what training on a run makes.
    let n_levels = 20;
    let mut table = table(&mut Random(3), 2, 0, true, 0);
    let mut token = 0;
    for level in 0..n_levels {
        table.pairs.insert(token, token, level);
        table.map.insert((token, token), (level, 2 + level));
        token = 2 + level;
        table.results.push(token);
        table.lengths.push(2 << level);
    }
    let (mut merger, mut long) = (Merger::default(), Long::default());
    let mut random = Random(4);
    for n_symbols in [257, 3_000, 70_001, 1_000_005] {
        table.symbols = vec![0; n_symbols];
        for _ in 0..3 {
            let mut expected = table.symbols.clone();
            merger.heap.merge(&mut expected, &table);
            let mut bucketed = table.symbols.clone();
            merger.buckets.merge(&mut bucketed, &table);
            assert_eq!(bucketed, expected);
            let mut merged: Vec<TokenId> = Vec::new();
            long.merge(&table, &table, &mut merger, &mut merged);
            assert_eq!(merged, expected);
            table.symbols[random.below(n_symbols)] = 1; // which nothing merges with
        }
    }
}
