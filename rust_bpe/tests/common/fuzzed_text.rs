//! What the fuzz targets of scanners, regular expressions and the encoder check of an input.

use std::sync::Arc;

use rust_bpe::encode::{Cache, Encoder, Stream};
use rust_bpe::pretokenize::{Engine, Pattern, UserRegex};
use rust_bpe::reference;
use rust_bpe::special::Special;
use rust_bpe::train::Alphabet;
use rust_bpe::vocabulary::{SpecialIds, Vocabulary};

const NAMED: [&str; 6] = ["gpt2", "cl100k", "llama3", "o200k", "whitespace", "none"];

thread_local! {
    /// The scanned patterns beside their expressions in the library.
    static SCANNED: [(Pattern, Pattern); 5] = [0, 1, 2, 3, 4].map(|index| {
        let pattern = Pattern::parse(NAMED[index]).expect("a name");
        let regex = UserRegex::new(pattern.regex().expect("it is scanned")).expect("an expression");
        (pattern, Pattern::Regex(regex))
    });
}

/// All engines split any bytes as the expression splits the text in which every bad byte is U+FFFD; a safe cut is safe.
pub fn scanner(data: &[u8]) {
    let mut text = String::new();
    let mut place_of = vec![0]; // in `text`, of each byte of `data`, as far as it can be an end
    for chunk in data.utf8_chunks() {
        place_of.extend((1..=chunk.valid().len()).map(|n| text.len() + n));
        text.push_str(chunk.valid());
        for _ in chunk.invalid() {
            text.push('\u{FFFD}');
            place_of.push(text.len());
        }
    }
    SCANNED.with(|scanned| {
        for (pattern, regex) in scanned {
            let scalar = ends(pattern, Engine::Scalar, data);
            let expected = ends(regex, Engine::Scalar, text.as_bytes());
            assert!(scalar.iter().map(|&end| place_of[end]).eq(expected), "{}", pattern.name());
            for engine in &Engine::ALL[1..] {
                assert_eq!(ends(pattern, *engine, data), scalar, "{} by {engine:?}", pattern.name());
            }
            for end in [data.len(), data.len() / 2] {
                let Some(cut) = pattern.safe_cut(&data[..end]) else { continue };
                let mut cut_ends = ends(pattern, Engine::best(), &data[..cut]);
                cut_ends.extend(ends(pattern, Engine::best(), &data[cut..]).into_iter().map(|end| cut + end));
                assert_eq!(cut_ends, scalar, "{} cut at {cut}", pattern.name());
            }
        }
    });
}

fn ends(pattern: &Pattern, engine: Engine, text: &[u8]) -> Vec<usize> {
    let (mut all, mut batch) = (Vec::new(), Vec::new());
    let mut splitter = pattern.splitter_by(engine, text);
    while all.last().copied().unwrap_or(0) < text.len() {
        splitter.next(all.last().copied().unwrap_or(0), &mut batch).expect("a short text");
        all.extend_from_slice(&batch);
    }
    all
}

/// A user's expression, the first line, is refused, or it splits the rest as its slow twin does, or both give up.
pub fn regex(data: &[u8]) {
    let line = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let Ok(source) = str::from_utf8(&data[..line]) else { return };
    let text = data.get(line + 1..).unwrap_or_default();
    let Ok(regex) = UserRegex::new(source) else { return };
    let expected = reference::pretokens::ends(regex.library(), text);
    let (mut ends, mut end) = (Vec::new(), 0);
    let outcome = Pattern::Regex(regex).split(text, |pretoken| {
        assert!(!pretoken.is_empty());
        end += pretoken.len();
        ends.push(end);
    });
    match expected {
        Ok(expected) => assert_eq!(outcome.map(|()| ends).expect("the twin splits it"), expected),
        Err(_) => assert!(outcome.is_err()),
    }
}

/// Merges, special tokens, pattern, chunks and text from the bytes: encoder and stream agree with the slow twin
/// whatever the cache holds, and decoding gives the text back.
pub fn encoding(data: &[u8]) {
    let [choice, n_merges, chunk, rest @ ..] = data else { return };
    let pattern = Pattern::parse(NAMED[*choice as usize % NAMED.len()]).expect("a name");
    let (pairs, text) = rest.split_at((*n_merges as usize * 2).min(rest.len()) & !1);
    let text = &text[..text.len().min(1000)]; // the slow twin is quadratic
    // Repeated, so that some pre-tokens are merged in pieces.
    let text = text.repeat(if *choice & 64 == 0 { 1 } else { 1 + 1500 / text.len().max(1) });
    let text = &text[..];
    let mut merges: Vec<(u32, u32)> = Vec::new();
    let mut lengths = vec![1; 256]; // doubled thirty times, a token alone would fill the memory
    for pair in pairs.chunks_exact(2) {
        // A byte below 128 is that byte, one above a merge made before, counted back.
        let n_symbols = 256 + merges.len() as u32;
        let symbol =
            |byte: u8| if byte < 128 { byte.into() } else { n_symbols - 1 - u32::from(byte - 128) % n_symbols };
        let merge = (symbol(pair[0]), symbol(pair[1]));
        let length = lengths[merge.0 as usize] + lengths[merge.1 as usize];
        if length <= 1 << 12 && !merges.contains(&merge) {
            merges.push(merge);
            lengths.push(length);
        }
    }
    let specials = ["<|endoftext|>", "<|a|>", "<|a|><|a|>", "\0\0"].map(str::to_owned);
    let special_ids = if *choice < 128 { SpecialIds::End } else { SpecialIds::Front };
    let made = Vocabulary::from_merges(&Alphabet::Bytes, &merges, pattern, &specials, special_ids);
    let Ok(vocabulary) = made else { return }; // two merges that make the same bytes, or those of a special token
    let encoder = Arc::new(Encoder::new(Arc::new(vocabulary)));
    let (mut cache, mut small) = (Cache::new(), Cache::small());
    for special in [Special::Allow, Special::Text, Special::Error] {
        let expected = reference::encode::encode(encoder.vocabulary(), text, special);
        for _ in ["cold", "warm"] {
            let mut ids: Vec<u16> = Vec::new();
            let outcome = encoder.encode(text, special, &mut cache, &mut ids);
            let Ok(expected) = &expected else {
                assert!(outcome.is_err());
                continue;
            };
            outcome.expect("the slow twin had no error");
            assert!(ids.iter().map(|&id| u32::from(id)).eq(expected.iter().copied()), "{special:?}");
            assert_eq!(encoder.decode(&ids).expect("ids of our own"), text);
            let mut streamed: Vec<u16> = Vec::new();
            let mut stream = Stream::new(encoder.clone(), special);
            for part in text.chunks(*chunk as usize + 1) {
                stream.push(part, &mut small, &mut streamed).expect("the whole had no error");
            }
            stream.finish(&mut small, &mut streamed).expect("the whole had no error");
            assert_eq!(streamed, ids);
        }
    }
}
