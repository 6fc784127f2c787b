//! Words whose tokens are known before any text is read: training leaves every word that it counted encoded.
//!
//! Read by all threads and never changed, so each of them is spared merging the words of its corpus anew: a sixth of
//! the time of `pylm tokenize` on 74 MB of English.

use rustc_hash::FxHashMap;

use crate::token::TokenId;
use crate::train::Encodings;
use crate::words::Words;

/// More words than these are not kept, the rarest first: about 30 MB.
const MOST_WORDS: usize = 1 << 18;

/// Longer words than these are kept as long as all of them together have so many bytes: there are few (lines of dashes,
/// indentation of hundreds of spaces), but each costs as much as hundreds of others.
const LONG_WORD: usize = 64;
const LONG_WORDS_BYTES: usize = 4 << 20;

/// The tokens of words.
#[derive(Debug, Default)]
pub struct KnownWords {
    places: FxHashMap<Box<[u8]>, (u32, u32)>,
    ids: Vec<TokenId>,
}

impl KnownWords {
    /// The most frequent of `words` with what training made of them; `id_of_symbol` has the id of each symbol.
    pub fn of(words: &Words, encodings: &Encodings, id_of_symbol: &[TokenId]) -> Self {
        let least = least_count(words);
        let mut known = Self::default();
        known.places.reserve(words.len().min(MOST_WORDS));
        let mut room = LONG_WORDS_BYTES;
        for ((word, count), symbols) in words.iter().zip(encodings.iter()) {
            let is_long = word.len() > LONG_WORD;
            if count >= least && (!is_long || word.len() <= room) {
                room -= if is_long { word.len() } else { 0 };
                let start = known.ids.len() as u32; // at most 2^18 words of 2^6 tokens, and the long ones
                known.ids.extend(symbols.iter().map(|&symbol| id_of_symbol[symbol as usize]));
                known.places.insert(word.into(), (start, known.ids.len() as u32));
            }
        }
        known
    }

    /// Replaces `tokens` by those of a word that is known.
    pub(super) fn get(&self, word: &[u8], tokens: &mut Vec<TokenId>) -> bool {
        let Some(&(start, end)) = self.places.get(word) else { return false };
        tokens.clear();
        tokens.extend_from_slice(&self.ids[start as usize..end as usize]);
        true
    }
}

/// The least count so that at most [`MOST_WORDS`] words have it or more.
fn least_count(words: &Words) -> u64 {
    if words.len() <= MOST_WORDS {
        return 0;
    }
    let mut counts: Vec<u64> = words.iter().map(|(_, count)| count).collect();
    let (_, &mut largest_dropped, _) = counts.select_nth_unstable_by(MOST_WORDS, |a, b| b.cmp(a));
    largest_dropped.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_words_the_rarest_are_dropped() {
        let count = |number: u64| if number < 1000 { 5 } else { 1 + number % 3 };
        let words = (0..MOST_WORDS as u64 + 50_000).map(|number| (number.to_le_bytes(), count(number)));
        let words = Words::from_counts(words).unwrap();
        let least = least_count(&words);
        let n_kept = words.iter().filter(|(_, count)| *count >= least).count();
        assert!((1000..=MOST_WORDS).contains(&n_kept), "{n_kept} words");
        assert_eq!(least_count(&Words::from_counts([("a", 1), ("b", 2)]).unwrap()), 0);
    }
}
