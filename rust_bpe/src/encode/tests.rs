//! The encoder agrees with the slow one, whatever the vocabulary, the cache, the chunks and the bytes.

use std::path::Path;
use std::sync::Arc;

use sha2::Digest;

use super::*;
use crate::checksum::Sha256;
use crate::merge::Heap;
use crate::monitor::Monitor;
use crate::pretokenize::Pattern;
use crate::reference;
use crate::train::{Alphabet, TrainOptions, train};
use crate::vocabulary::SpecialIds;
use crate::words::Words;

/// xorshift64*: enough for tests, the same everywhere.
pub(super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    /// Text made of `parts`, with a stray byte here and there.
    fn text(&mut self, parts: &[&str], n_parts: usize, stray_bytes: bool) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..n_parts {
            if stray_bytes && self.below(12) == 0 {
                text.push(self.below(256) as u8);
            } else {
                text.extend_from_slice(parts[self.below(parts.len())].as_bytes());
            }
        }
        text
    }
}

const PARTS: [&str; 24] = [
    "the",
    " the",
    " cat",
    "s",
    " ",
    "  ",
    "\n",
    "\r\n",
    "'s",
    "'LL",
    "12",
    "3456",
    "é",
    " Straße",
    "語",
    "日本語",
    "🙂",
    "\0",
    "<|endoftext|>",
    "<|end",
    "<|a|>",
    "|>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "anticonstitutionnellement",
];

const SPECIALS: [&str; 4] = ["<|endoftext|>", "<|a|>", "<|a|><|a|>", "<|end"];

fn strings(strings: &[&str]) -> Vec<String> {
    strings.iter().map(|string| string.to_string()).collect()
}

/// A vocabulary trained on the pre-tokens of `text`.
pub(super) fn trained(
    text: &[u8],
    pattern: &str,
    n_merges: usize,
    over_bytes: bool,
    special_ids: SpecialIds,
) -> Vocabulary {
    let pattern = Pattern::parse(pattern).unwrap();
    let mut words = Vec::new();
    pattern.split(text, |word| words.push((word.to_vec(), 1))).unwrap();
    let words = Words::from_counts(words).unwrap();
    let alphabet = if over_bytes { Alphabet::Bytes } else { Alphabet::chars_of(&words).unwrap() };
    let options = TrainOptions::new(alphabet.len() + n_merges);
    let trained = train(&words, &alphabet, &options, &Monitor::new()).unwrap();
    Vocabulary::from_merges(&alphabet, &trained.merges, pattern, &strings(&SPECIALS), special_ids).unwrap()
}

pub(super) fn encoded(encoder: &Encoder, text: &[u8], special: Special, cache: &mut Cache) -> Vec<u32> {
    let mut ids = Vec::new();
    encoder.encode(text, special, cache, &mut ids).unwrap();
    ids
}

#[test]
fn ids_are_those_of_the_reference_and_decode_to_the_text() {
    let mut random = Random(3);
    for round in 0..60 {
        let pattern = ["gpt2", "cl100k", "o200k", "whitespace", "none", r"\w+|\W"][round % 6];
        let over_bytes = round % 4 != 3;
        let special_ids = if round % 2 == 0 { SpecialIds::End } else { SpecialIds::Front };
        let sample = random.text(&PARTS[..18], 300, over_bytes);
        let n_merges = random.below(200);
        let mut encoder = Encoder::new(Arc::new(trained(&sample, pattern, n_merges, over_bytes, special_ids)));
        if round % 5 == 0 {
            encoder.width = Width::Wide;
        }
        let mut cache = if round % 3 == 0 { Cache::small() } else { Cache::new() };
        if round % 2 == 0 {
            cache.processor = None; // else what this one has
        }
        for special in [Special::Allow, Special::Text] {
            for n_parts in [0, 1, 5, 200] {
                let text = random.text(&PARTS, n_parts, over_bytes);
                let expected = reference::encode::encode(encoder.vocabulary(), &text, special).unwrap();
                for _ in 0..2 {
                    assert_eq!(encoded(&encoder, &text, special, &mut cache), expected, "{pattern} {over_bytes}");
                }
                let mut narrow: Vec<u16> = vec![9];
                encoder.encode(&text, special, &mut cache, &mut narrow).unwrap();
                assert_eq!(narrow[0], 9);
                assert!(narrow[1..].iter().map(|&id| id as u32).eq(expected.iter().copied()));
                if over_bytes {
                    assert_eq!(encoder.decode(&expected).unwrap(), text);
                    assert_eq!(encoder.decode(&narrow[1..]).unwrap(), text);
                }
            }
        }
    }
}

/// Words of all lengths, most of them new: they wait for each other, between known ones.
#[test]
fn new_words_between_known_ones_are_encoded_as_the_rule_says() {
    let mut random = Random(8);
    for round in 0..12 {
        let over_bytes = round % 3 != 2;
        let pattern = ["gpt2", "o200k"][round % 2];
        let sample = b"banana bandana ana abba a band and bandanas ".repeat(3);
        let mut encoder = Encoder::new(Arc::new(trained(&sample, pattern, 12, over_bytes, SpecialIds::End)));
        if round % 4 == 0 {
            encoder.width = Width::Wide;
        }
        let mut text = Vec::new();
        for _ in 0..1500 {
            let length = [3, 8, 20, 40][random.below(4)] - random.below(3);
            match random.below(10) {
                0..6 => text.extend_from_slice(b" banana and"),
                6 => text.extend(std::iter::repeat_n(b' ', 300 * random.below(2))),
                _ => text.extend((0..length).map(|place| if place == 0 { b' ' } else { b"abnds"[random.below(5)] })),
            }
        }
        let expected = reference::encode::encode(encoder.vocabulary(), &text, Special::Text).unwrap();
        let mut cache = if round % 5 == 4 { Cache::small() } else { Cache::new() };
        for _ in 0..2 {
            assert_eq!(encoded(&encoder, &text, Special::Text, &mut cache), expected, "{pattern} {over_bytes}");
        }
    }
}

#[test]
fn ids_do_not_depend_on_the_chunks_of_a_stream() {
    let mut random = Random(4);
    for round in 0..40 {
        let pattern = ["gpt2", "cl100k", "o200k", "whitespace", "none", r"\w+|\W"][round % 6];
        let over_bytes = round % 4 != 3;
        let sample = random.text(&PARTS[..18], 200, over_bytes);
        let encoder = Arc::new(Encoder::new(Arc::new(trained(&sample, pattern, 100, over_bytes, SpecialIds::End))));
        let text = random.text(&PARTS, 6000, over_bytes);
        let mut cache = Cache::new();
        for special in [Special::Allow, Special::Text] {
            let whole = encoded(&encoder, &text, special, &mut cache);
            if round % 2 == 0 {
                cache = Cache::small();
            }
            let mut stream = Stream::new(encoder.clone(), special);
            let mut ids: Vec<u32> = Vec::new();
            let largest = [1, 7, 1000, 40_000][round % 4];
            let mut rest = &text[..];
            while !rest.is_empty() {
                let (chunk, behind) = rest.split_at(rest.len().min(random.below(largest) + 1));
                stream.push(chunk, &mut cache, &mut ids).unwrap();
                rest = behind;
            }
            stream.finish(&mut cache, &mut ids).unwrap();
            assert_eq!(ids, whole, "{pattern}, chunks of up to {largest}");
        }
    }
}

#[test]
fn a_cache_serves_one_encoder_after_another() {
    let sample = b"the cat the cat and the other cats";
    let first = Encoder::new(Arc::new(trained(sample, "gpt2", 20, true, SpecialIds::End)));
    let second = Encoder::new(Arc::new(trained(sample, "gpt2", 20, true, SpecialIds::Front)));
    let mut cache = Cache::new();
    for encoder in [&first, &second, &first] {
        let expected = reference::encode::encode(encoder.vocabulary(), sample, Special::Text).unwrap();
        assert_eq!(encoded(encoder, sample, Special::Text, &mut cache), expected);
    }
}

#[test]
fn a_special_token_that_is_not_allowed_is_an_error_with_its_position() {
    let encoder = Arc::new(Encoder::new(Arc::new(trained(b"abc", "gpt2", 2, true, SpecialIds::End))));
    let mut cache = Cache::new();
    let position_of = |error| match error {
        Err(Error::Text { position, message }) if message.contains("<|endoftext|>") => position,
        other => panic!("{other:?}"),
    };
    let mut ids: Vec<u16> = Vec::new();
    assert_eq!(position_of(encoder.encode(b"abc<|endoftext|>", Special::Error, &mut cache, &mut ids)), 3);
    let mut stream = Stream::new(encoder, Special::Error);
    let long = [&b"ab ".repeat(30_000)[..], b"<|endoftext|>"].concat();
    let mut outcome = Ok(());
    for chunk in long.chunks(5) {
        outcome = outcome.and_then(|()| stream.push(chunk, &mut cache, &mut ids));
    }
    let outcome = outcome.and_then(|()| stream.finish(&mut cache, &mut ids));
    assert_eq!(position_of(outcome), 90_000);
}

#[test]
fn characters_outside_the_vocabulary_are_unknown_or_an_error_with_their_position() {
    let mut cache = Cache::new();
    let mut ids: Vec<u16> = Vec::new();
    let refused = |specials: &[&str]| {
        Encoder::new(Arc::new(Vocabulary::chars("abé".chars().collect(), &strings(specials), SpecialIds::End).unwrap()))
    };
    let strict = refused(&["<|endoftext|>"]);
    let outcome = strict.encode("a<|endoftext|>béx".as_bytes(), Special::Allow, &mut cache, &mut ids);
    assert!(matches!(outcome, Err(Error::Text { position: 17, .. })), "{outcome:?}");
    let merging = Encoder::new(Arc::new(trained(b"ab ab abba aab", "gpt2", 3, false, SpecialIds::Front)));
    let unknown: Vec<u32> = encoded(&merging, "ab é ab".as_bytes(), Special::Text, &mut cache);
    assert_eq!(unknown, reference::encode::encode(merging.vocabulary(), "ab é ab".as_bytes(), Special::Text).unwrap());
    // The first of two, though it waits to be merged with others when the second is met, in a long word.
    let json = String::from_utf8(merging.vocabulary().to_json())
        .unwrap()
        .replace("\"unk_token\": \"<unk>\"", "\"unk_token\": null");
    let vocabulary = Vocabulary::from_json(json.as_bytes(), std::path::Path::new("tokenizer.json")).unwrap();
    let text = format!("ab aéb {}é", "ab".repeat(20));
    let outcome = Encoder::new(Arc::new(vocabulary)).encode(text.as_bytes(), Special::Text, &mut cache, &mut ids);
    assert!(matches!(outcome, Err(Error::Text { position: 4, .. })), "{outcome:?}");
    let outcome = strict.encode(b"ab\xffa", Special::Text, &mut cache, &mut ids);
    assert!(matches!(outcome, Err(Error::Text { position: 2, .. })), "{outcome:?}");
    let lenient = refused(&["<unk>"]);
    assert_eq!(encoded(&lenient, "axébz".as_bytes(), Special::Text, &mut cache), [0, 3, 2, 1, 3]);
}

#[test]
fn a_long_run_is_encoded_as_the_rule_says() {
    let sample = b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ab aba";
    let encoder = Encoder::new(Arc::new(trained(sample, "none", 30, true, SpecialIds::End)));
    let mut cache = Cache::new();
    for length in [1000, 1023, 1024, 1025, 1500, 3001] {
        let text: Vec<u8> = b"a".repeat(length);
        let expected = reference::encode::encode(encoder.vocabulary(), &text, Special::Text).unwrap();
        assert_eq!(encoded(&encoder, &text, Special::Text, &mut cache), expected, "{length}");
    }
}

#[test]
fn a_pretoken_too_long_to_be_remembered_is_encoded_as_the_rule_says() {
    let sample = b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa abbab aba bab";
    let encoder = Encoder::new(Arc::new(trained(sample, "none", 30, true, SpecialIds::End)));
    let mut cache = Cache::new();
    let mut random = Random(7);
    for length in [LONGEST_WORD, LONGEST_WORD + 1, 3 * LONGEST_WORD] {
        let word: Vec<u8> = (0..length).map(|_| b"aab"[random.below(3)]).collect();
        let mut tokens: Vec<TokenId> = word.iter().map(|&byte| encoder.vocabulary().id_of(&[byte]).unwrap()).collect();
        Heap::default().merge(&mut tokens, &encoder.ranks);
        let special = encoder.vocabulary().special_tokens().find(b"<|endoftext|>", 0).unwrap().1;
        let text = [&word[..], b"<|endoftext|>", &word[..]].concat();
        let expected = [&tokens[..], &[special], &tokens[..]].concat();
        assert_eq!(encoded(&encoder, &text, Special::Allow, &mut cache), expected, "{length}");
        let mut narrow: Vec<u16> = vec![7];
        encoder.encode(&text, Special::Allow, &mut cache, &mut narrow).unwrap();
        assert!(narrow[1..].iter().map(|id| id.to_id()).eq(expected), "{length}");
    }
}

#[test]
fn ids_above_the_array_type_and_ids_of_no_token_are_errors() {
    let merges: Vec<(u32, u32)> = (0..256).flat_map(|left| (0..256).map(move |right| (left, right))).collect();
    let vocabulary = Vocabulary::from_merges(&Alphabet::Bytes, &merges, Pattern::None, &[], SpecialIds::End).unwrap();
    assert_eq!((vocabulary.largest_id(), vocabulary.dtype()), (65_791, crate::token::Dtype::U32));
    let encoder = Encoder::new(Arc::new(vocabulary));
    let mut narrow: Vec<u16> = Vec::new();
    let outcome = encoder.encode(b"ab", Special::Error, &mut Cache::new(), &mut narrow);
    assert!(matches!(outcome, Err(Error::Setting(_))));
    assert!(matches!(encoder.decode(&[65_792u32]), Err(Error::UnknownId { id: 65_792, largest: 65_791 })));
}

#[test]
fn saving_and_loading_is_the_identity() {
    let mut random = Random(5);
    for round in 0..24 {
        let pattern = ["gpt2", "cl100k", "o200k", "whitespace", "none", r"\w+|\W"][round % 6];
        let over_bytes = round % 4 != 3;
        let special_ids = if round % 2 == 0 { SpecialIds::End } else { SpecialIds::Front };
        let sample = random.text(&PARTS[..18], 300, over_bytes);
        let vocabulary = trained(&sample, pattern, 100, over_bytes, special_ids);
        let json = vocabulary.to_json();
        let loaded = Vocabulary::from_json(&json, Path::new("tokenizer.json")).unwrap();
        assert_eq!(loaded.to_json(), json);
        assert_eq!(loaded.sha256(), vocabulary.sha256());
        assert_eq!(loaded.pattern(), vocabulary.pattern());
        let text = random.text(&PARTS, 300, over_bytes);
        let mut cache = Cache::new();
        let before = encoded(&Encoder::new(Arc::new(vocabulary)), &text, Special::Allow, &mut cache);
        assert_eq!(encoded(&Encoder::new(Arc::new(loaded)), &text, Special::Allow, &mut cache), before);
    }
}

#[test]
fn hashing_beside_encoding_changes_neither() {
    let mut random = Random(11);
    let text = random.text(&PARTS, 4_000, true);
    let encoder = Encoder::new(Arc::new(trained(&text, "gpt2", 200, true, SpecialIds::End)));
    for round in 0..40 {
        let mut cache = Cache::for_text([0, 1 << 22][round / 4 % 2]);
        if round % 4 == 0 {
            cache.processor = None;
        }
        let text = &text[..random.below(text.len())];
        let mut hashed = Vec::new();
        for _ in 0..round % 4 {
            let n_parts = [3, 100, 8_000][random.below(3)];
            hashed.push(random.text(&PARTS, n_parts, true));
        }
        let mut hashes = vec![Sha256::new(); hashed.len()];
        let mut streams = Streams::default();
        hashes.iter_mut().zip(&hashed).for_each(|(hash, bytes)| streams.push(hash, bytes));
        let (mut ids, mut expected): (Vec<TokenId>, Vec<TokenId>) = Default::default();
        for _ in 0..2 {
            encoder.encode_and_hash(text, Special::Text, &mut cache, &mut streams, &mut ids).unwrap();
            encoder.encode(text, Special::Text, &mut Cache::new(), &mut expected).unwrap();
        }
        streams.finish();
        assert_eq!(ids, expected);
        for (hash, bytes) in hashes.into_iter().zip(&hashed) {
            assert_eq!(hash.finish()[..], sha2::Sha256::digest(bytes)[..]);
        }
    }
}
