//! The slow twins: the same results by the most obvious way, for tests.

pub mod attention;
pub mod encode;
pub mod logits;
pub mod pretokens;

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::error::Result;
use crate::train::{Alphabet, Encodings, Stop, Ties, TrainOptions, Trained, n_merges};
use crate::words::Words;

/// What [`crate::train::train`] computes, by counting all pairs again before every merge.
pub fn train(words: &Words, alphabet: &Alphabet, options: &TrainOptions) -> Result<Trained> {
    let n_merges = n_merges(alphabet, options)?;
    let base: Vec<Vec<u8>> = match alphabet {
        Alphabet::Bytes => (0..=255).map(|byte| vec![byte]).collect(),
        Alphabet::Chars(chars) => chars.iter().map(|c| c.to_string().into_bytes()).collect(),
    };
    let mut tokens = base.clone();
    let mut texts: Vec<(Vec<u32>, u64)> = words.iter().map(|(word, count)| (spell(word, alphabet), count)).collect();
    let mut merges = Vec::new();
    while merges.len() < n_merges {
        let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
        for (symbols, count) in &texts {
            for pair in symbols.windows(2) {
                *counts.entry((pair[0], pair[1])).or_default() += count;
            }
        }
        counts.retain(|&(left, right), count| {
            let length = tokens[left as usize].len() + tokens[right as usize].len();
            *count >= options.min_frequency && options.max_token_bytes.is_none_or(|limit| length <= limit)
        });
        let bytes = |symbol: u32| &tokens[symbol as usize];
        let best = match options.ties {
            Ties::Bytes => counts.iter().max_by_key(|&(&(l, r), &count)| (count, bytes(l), bytes(r))),
            Ties::Ids => counts.iter().max_by_key(|&(&pair, &count)| (count, Reverse(pair))),
            Ties::HuggingFace => counts.iter().max_by_key(|&(&(l, r), &count)| {
                (count, Reverse((huggingface_rank(l, alphabet), huggingface_rank(r, alphabet))))
            }),
        };
        let Some((&(left, right), _)) = best else { break };
        let token = tokens.len() as u32;
        tokens.push([tokens[left as usize].clone(), tokens[right as usize].clone()].concat());
        merges.push((left, right));
        for (symbols, _) in &mut texts {
            *symbols = join(symbols, (left, right), token);
        }
    }
    let stop = if merges.len() == n_merges { Stop::Size } else { Stop::NoPairs };
    let mut encodings = Encodings::default();
    texts.into_iter().for_each(|(symbols, _)| encodings.push(symbols.into_iter()));
    Ok(Trained { merges, stop, encodings })
}

fn spell(word: &[u8], alphabet: &Alphabet) -> Vec<u32> {
    match alphabet {
        Alphabet::Bytes => word.iter().map(|&byte| byte.into()).collect(),
        Alphabet::Chars(chars) => String::from_utf8_lossy(word)
            .chars()
            .map(|c| chars.iter().position(|&other| other == c).map_or(u32::MAX, |symbol| symbol as u32))
            .collect(),
    }
}

/// Joins the pair from left to right.
fn join(symbols: &[u32], pair: (u32, u32), token: u32) -> Vec<u32> {
    let mut joined = Vec::new();
    let mut rest = symbols;
    while let Some(&first) = rest.first() {
        let is_pair = rest.len() > 1 && (first, rest[1]) == pair;
        joined.push(if is_pair { token } else { first });
        rest = &rest[if is_pair { 2 } else { 1 }..];
    }
    joined
}

/// Where a symbol stands in the order that Hugging Face's trainer gives ids: base symbols by their written character,
/// then merges.
fn huggingface_rank(symbol: u32, alphabet: &Alphabet) -> (bool, u32) {
    match alphabet {
        Alphabet::Bytes if symbol < 256 => {
            // The bytes that are not visible in Latin-1 are written as U+0100, U+0101 and so on, so they come last.
            let byte = symbol as u8;
            let is_hidden = !(byte.is_ascii_graphic() || (byte >= 0xa1 && byte != 0xad));
            (false, if is_hidden { 256 + symbol } else { symbol })
        }
        Alphabet::Chars(chars) if (symbol as usize) < chars.len() => (false, chars[symbol as usize] as u32),
        _ => (true, symbol),
    }
}
