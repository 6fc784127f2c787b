//! Threads that share words encode as one by itself does, whoever meets a word first, and keep the same words.

use std::collections::HashMap;
use std::sync::Arc;

use super::learned::Gathered;
use super::shared::Bounds;
use super::tests::{Random, encoded, trained};
use super::*;
use crate::reference;
use crate::vocabulary::SpecialIds;

/// A text of words of all lengths, of which many are in other texts, too.
fn text_of(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..300 {
        let mut word = Random(1 + random.below(2500) as u64);
        let length = 1 + word.below([4, 15, 31, 70][random.below(4)]);
        text.push(b' ');
        text.extend((0..length).map(|_| b"abnds"[word.below(5)]));
    }
    text
}

const WIDE: Bounds = Bounds { own_words: 20, short_buckets: 1 << 12, medium_buckets: 1 << 12, spilled_ids: 1 << 16 };

#[test]
fn ids_and_kept_words_do_not_depend_on_the_threads() {
    let bounds = [
        WIDE,
        Bounds { own_words: 500, ..WIDE },
        // Nobody joins.
        Bounds { own_words: 1 << 20, ..WIDE },
        // What is there is forgotten all the time.
        Bounds { short_buckets: 8, medium_buckets: 8, ..WIDE },
        Bounds { spilled_ids: 300, ..WIDE },
    ];
    let mut random = Random(12);
    for round in 0..20 {
        let bounds = bounds[round % 5];
        let sample = b"banana bandana ana abba a band and bandanas ".repeat(3);
        let mut encoder = Encoder::new(Arc::new(trained(&sample, "gpt2", 12, round % 3 != 2, SpecialIds::End)));
        if round % 2 == 0 {
            encoder.width = Width::Wide;
        }
        let encode = |text: &[u8]| reference::encode::encode(encoder.vocabulary(), text, Special::Text).unwrap();
        let texts: Vec<Vec<u8>> = (0..10).map(|_| text_of(&mut random)).collect();
        let expected: Vec<Vec<TokenId>> = texts.iter().map(|text| encode(text)).collect();
        let mut met = HashMap::new();
        for text in &texts {
            encoder.vocabulary().pattern().split(text, |word| _ = met.insert(word.to_vec(), encode(word))).unwrap();
        }
        let mut known = KnownWords::default();
        if round % 4 == 3 {
            met.iter().take(400).for_each(|(word, ids)| known.push(word, ids.iter().copied()));
        }
        let encoder = encoder.with_known(Arc::new(known));

        let shared = Arc::new(SharedWords::bounded(encoder.serial, encoder.known.clone(), encoder.width, bounds));
        let caches = crate::parallel::map(0..4, |thread| {
            let mut cache = Cache::sharing(&shared, 0);
            if round % 4 == 1 {
                cache.processor = None;
            }
            // The last one meets few words, and may not join.
            for number in 0..if thread == 3 { 1 } else { 20 } {
                let number = (number * (1 + 2 * thread) + thread) % texts.len();
                let ids = encoded(&encoder, &texts[number], Special::Text, &mut cache);
                assert_eq!(ids, expected[number], "round {round}");
            }
            cache
        });
        let mut kept = HashMap::new();
        for part in KnownWords::of_caches(&caches) {
            part.iter().for_each(|(word, ids)| assert!(kept.insert(word.to_vec(), ids.to_vec()).is_none(), "once"));
        }
        assert!(kept.iter().all(|(word, ids)| met[word] == *ids), "round {round}");
        check_shortest(&caches, &kept);
        // Of a few words there is no place for.
        let n_least = [met.len() * 99 / 100, 1][usize::from(round % 5 >= 3)];
        assert!(kept.len() >= n_least, "round {round}: {} of {}", kept.len(), met.len());
    }
}

/// Of too many words the shortest are kept.
fn check_shortest(caches: &[Cache], all: &HashMap<Vec<u8>, Vec<TokenId>>) {
    for most_words in [1, 100, all.len() / 2, all.len()] {
        let parts = Gathered::new(caches, most_words).parts();
        let mut lengths: Vec<usize> = parts.iter().flat_map(KnownWords::iter).map(|(word, _)| word.len()).collect();
        let mut expected: Vec<usize> = all.keys().map(Vec::len).collect();
        lengths.sort();
        expected.sort();
        assert_eq!(lengths, expected[..most_words.min(expected.len())], "{most_words}");
    }
}

/// A cache may go on with another encoder, whose words are others.
#[test]
fn what_is_shared_is_of_one_encoder() {
    let mut random = Random(13);
    let text = text_of(&mut random);
    let encoders =
        [3, 12].map(|n_merges| Encoder::new(Arc::new(trained(&text, "gpt2", n_merges, true, SpecialIds::End))));
    let shared = Arc::new(SharedWords::bounded(encoders[0].serial, Arc::default(), encoders[0].width, WIDE));
    let mut cache = Cache::sharing(&shared, 0);
    for round in 0..6 {
        let encoder = &encoders[round % 2];
        let text = text_of(&mut random);
        let expected = reference::encode::encode(encoder.vocabulary(), &text, Special::Text).unwrap();
        assert_eq!(encoded(encoder, &text, Special::Text, &mut cache), expected);
    }
}
