//! Scanners against fancy-regex with the regular expressions as they were published, and the properties of cuts.

use super::*;
use crate::reference;

/// The published expressions, by the engine that tiktoken uses, as an independent judge of valid UTF-8.
fn published_ends(pattern: &Pattern, text: &str) -> Vec<usize> {
    REFERENCES.with(|references| {
        let (_, regex) = references.iter().find(|(of, _)| of == pattern).expect("a named pattern");
        let ends: Vec<usize> = regex.find_iter(text).map(|found| found.unwrap().end()).collect();
        ends
    })
}

thread_local! {
    static REFERENCES: Vec<(Pattern, fancy_regex::Regex)> = [
        (Pattern::Gpt2, r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
        (Pattern::Cl100k, r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"),
        (Pattern::Llama3, published::LLAMA3),
        (Pattern::O200k, published::O200K),
        (Pattern::Whitespace, r" ?\S+|\s+(?!\S)|\s+"),
    ]
    .map(|(pattern, regex)| (pattern, fancy_regex::Regex::new(regex).unwrap()))
    .into();
}

const SCANNED: [Pattern; 5] = [Pattern::Gpt2, Pattern::Cl100k, Pattern::Llama3, Pattern::O200k, Pattern::Whitespace];

/// The ends by all engines, which must agree.
fn ends(pattern: &Pattern, text: &[u8]) -> Vec<usize> {
    let scalar = ends_by(Engine::Scalar, pattern, text);
    for engine in &Engine::ALL[1..] {
        let fast = ends_by(*engine, pattern, text);
        if fast != scalar {
            let first = fast.iter().zip(&scalar).take_while(|(a, b)| a == b).count().saturating_sub(1);
            let from = scalar.get(first).copied().unwrap_or(0);
            let around = text[from..text.len().min(from + 80)].escape_ascii();
            panic!(
                "{} by {engine:?} differs from scalar after byte {from} of {}: {around}",
                pattern.name(),
                text.len()
            );
        }
    }
    scalar
}

fn ends_by(engine: Engine, pattern: &Pattern, text: &[u8]) -> Vec<usize> {
    let mut all = Vec::new();
    let mut batch = Vec::new();
    let mut splitter = pattern.splitter_by(engine, text);
    while all.last() != Some(&text.len()) && !text.is_empty() {
        splitter.next(all.last().copied().unwrap_or(0), &mut batch).unwrap();
        assert!(!batch.is_empty() && batch.len() <= PRETOKEN_BATCH);
        all.extend_from_slice(&batch);
    }
    all
}

fn assert_published(text: &str) {
    for pattern in &SCANNED {
        let (found, expected) = (ends(pattern, text.as_bytes()), published_ends(pattern, text));
        if found != expected {
            let first = found.iter().zip(&expected).take_while(|(a, b)| a == b).count().saturating_sub(1);
            let from = found.get(first).copied().unwrap_or(0).saturating_sub(40);
            let around: String = String::from_utf8_lossy(&text.as_bytes()[from..]).chars().take(80).collect();
            panic!("{} differs after byte {from}: {around:?}", pattern.name());
        }
    }
}

/// A small generator (xorshift64*), so that tests repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Characters of all classes, and now and then a bad byte or half a character.
    fn bytes(&mut self, n_chars: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..n_chars {
            let mut utf8 = [0; 4];
            let char = self.pick(REPRESENTATIVES).encode_utf8(&mut utf8).as_bytes();
            match self.below(12) {
                0 => bytes.extend(&char[self.below(char.len())..]),
                1 => bytes.extend(&char[..self.below(char.len()) + 1]),
                2 => bytes.push(self.below(256) as u8),
                _ => bytes.extend(char),
            }
        }
        bytes
    }
}

/// One or more of each class, of each length in bytes, and every character that a pattern names.
const REPRESENTATIVES: &[char] = &[
    'a',
    's',
    't',
    'r',
    'e',
    'v',
    'l',
    'A',
    'S',
    'L',
    'é',
    'É',
    'ſ',
    'ǅ',
    'ʰ',
    'ª',
    '中',
    '𐐀',
    '𐐨',
    '𠀀',
    '\u{301}',
    '\u{903}',
    '\u{20DD}',
    '\u{1E8D0}',
    '1',
    '٣',
    'Ⅷ',
    '½',
    '𝟘',
    ' ',
    '\t',
    '\n',
    '\r',
    '\u{85}',
    '\u{A0}',
    '\u{2028}',
    '\u{3000}',
    '\'',
    '/',
    '!',
    '’',
    '。',
    '😀',
    '\0',
    '\u{200D}',
    '\u{378}',
    '\u{FFFD}',
    '\u{10FFFF}',
];

#[test]
fn every_code_point_in_contexts_splits_as_published() {
    let mut text = String::new();
    let mut class_before = 0;
    for char in '\0'..=char::MAX {
        text.extend([char, 'x', char, '!', char]);
        let class = class::char_at(char.to_string().as_bytes(), 0).class;
        if class != class_before {
            // The first of a range of one class, where a wrong table would show: more contexts.
            text.extend(['1', char, ' ', char, char, '\n', char, 'A', char, '\'', char, 's', '\'', char, '\n']);
        }
        class_before = class;
        if text.len() > 1 << 20 {
            assert_published(&text);
            text.clear();
        }
    }
    assert_published(&text);
}

#[test]
fn all_pairs_and_triples_of_representatives_split_as_published() {
    for &a in REPRESENTATIVES {
        let mut text = String::new();
        for &b in REPRESENTATIVES {
            assert_published(&format!("{a}{b}"));
            for &c in REPRESENTATIVES {
                text.extend([a, b, c, '\n', 'x']);
                text.extend([' ', '1', a, b, c, '0']);
            }
        }
        assert_published(&text);
    }
}

#[test]
fn random_bytes_are_partitioned_and_split_again_from_any_boundary() {
    let mut random = Random(1);
    for round in 0..300 {
        let text = random.bytes(round * 4);
        for pattern in &SCANNED {
            let all = ends(pattern, &text);
            assert_eq!(all.last().copied().unwrap_or(0), text.len());
            assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        }
    }
}

#[test]
fn a_safe_cut_changes_nothing_whatever_stands_around_it() {
    let mut random = Random(2);
    let mut n_cuts = 0;
    for round in 0..4000 {
        let (before, text, after) = (random.bytes(round % 9), random.bytes(1 + round % 24), random.bytes(round % 7));
        for pattern in &SCANNED {
            let Some(cut) = pattern.safe_cut(&text) else { continue };
            n_cuts += 1;
            let whole = [before.clone(), text.clone(), after.clone()].concat();
            let cut = before.len() + cut;
            let mut parts = ends(pattern, &whole[..cut]);
            parts.extend(ends(pattern, &whole[cut..]).iter().map(|end| cut + end));
            assert_eq!(
                parts,
                ends(pattern, &whole),
                "{} cut {:?} at {cut}",
                pattern.name(),
                String::from_utf8_lossy(&whole)
            );
        }
    }
    assert!(n_cuts > 5000, "{n_cuts}");
}

fn pieces(pattern: &str, text: &[u8]) -> Vec<String> {
    let mut pieces = Vec::new();
    let pattern = Pattern::parse(pattern).unwrap();
    pattern.split(text, |piece| pieces.push(piece.escape_ascii().to_string())).unwrap();
    pieces
}

#[test]
fn what_a_users_regex_leaves_is_a_pretoken_and_an_empty_match_only_cuts() {
    assert_eq!(pieces("[0-9]+", b"ab12c3"), ["ab", "12", "c", "3"]);
    assert_eq!(pieces("(?=[A-Z])", b"fooBarB"), ["foo", "Bar", "B"]);
    assert_eq!(pieces("x*", "aéx€".as_bytes()), ["a", r"\xc3\xa9", "x", r"\xe2\x82\xac"]);
    assert_eq!(pieces("$", b"ab\ncd\n"), ["ab", r"\ncd", r"\n"]);
    assert_eq!(pieces(r"(?<=a)b", b"abcb"), ["a", "b", "cb"]);
    assert_eq!(pieces("x", b""), [""; 0]);
}

#[test]
fn a_users_regex_takes_a_bad_byte_for_a_replacement_character() {
    assert_eq!(pieces(r"\p{L}+|\S", b"a\xFFb\xC3(\xC3\xA9"), ["a", r"\xff", "b", r"\xc3", "(", r"\xc3\xa9"]);
    assert_eq!(pieces(r"[^a]+", b"\xE2\x82b\xF0a"), [r"\xe2\x82b\xf0", "a"]);
    // With look-around the library goes back and forth by itself, here over half a character before the text's end.
    assert_eq!(pieces(r"(?<=a)[^a](?!b)", b"a\xF0\x9F\x98ab"), ["a", r"\xf0", r"\x9f\x98a", "b"]);
    assert_eq!(pieces(r"(?<!x).(?=\uFFFD|$)", b"x\xE2\x82"), ["x", r"\xe2", r"\x82"]);
}

#[test]
fn a_users_regex_splits_any_bytes_as_its_slow_twin() {
    let mut random = Random(5);
    for source in [
        r"\w+|\s",
        r"[^\s\p{L}]+(?!\S)",
        r"(?<=\S)\s(?=\S)",
        r"(?=\p{Lu})",
        r"x*",
        r"(.)\1|\uFFFD+",
        r"\G\p{L}|\d",
        r"(?=ab\K)|a\Kb",
        r"^|$",
    ] {
        let regex = UserRegex::new(source).unwrap();
        for round in 0..300 {
            let text = random.bytes(round * 4);
            let expected = reference::pretokens::ends(regex.library(), &text).unwrap();
            let found = ends(&Pattern::Regex(regex.clone()), &text);
            assert_eq!(found, expected, "{source} {}", text.escape_ascii());
        }
    }
}

#[test]
fn a_users_regex_splits_as_the_named_pattern_that_it_spells() {
    let mut random = Random(3);
    for named in &SCANNED {
        let user = Pattern::Regex(UserRegex::new(named.regex().unwrap()).unwrap());
        for round in 0..400 {
            let text = random.bytes(round);
            assert_eq!(ends(&user, &text), ends(named, &text), "{} {}", named.name(), text.escape_ascii());
        }
    }
}

#[test]
fn a_hostile_regex_ends_in_an_error() {
    let error = |regex: &str, text: &[u8]| match Pattern::parse(regex).and_then(|p| p.split(text, |_| ())) {
        Err(error) => error.to_string(),
        Ok(()) => panic!("{regex} was taken"),
    };
    let setting = |regex: &str| error(regex, b"");
    assert!(setting("(").contains(r#"pattern "(" is no regular expression"#));
    assert!(setting(&"(".repeat(10_000)).contains("nested"));
    assert!(setting(&"a".repeat(100_000)).contains("100000 bytes is too long"));
    assert!(setting("a{1000}{1000}{1000}").contains("no regular expression"));
    let text = "ab".repeat(100_000);
    for regex in ["(?:a|b|ab)*c(?!x)", "(a*b*)*[cd](?!x)", r"(\w*)*\1c"] {
        assert!(error(regex, text.as_bytes()).contains("was given up"), "{regex}");
    }
}

#[test]
fn a_pretoken_beyond_the_limit_is_an_error_with_its_position() {
    let mut text = vec![b'a'; MAX_PRETOKEN_BYTES + 3];
    text[1] = b' ';
    for pattern in ["gpt2", "cl100k", "llama3", "o200k", "whitespace", "a+"] {
        let pattern = Pattern::parse(pattern).unwrap();
        let error = pattern.split(&text, |_| ()).unwrap_err();
        let position = if pattern.name() == "regex" { 2 } else { 1 };
        assert!(matches!(error, Error::PreTokenTooLong { position: p } if p == position), "{} {error}", pattern.name());
        pattern.split(&text[..text.len() - 2], |_| ()).unwrap();
    }
    assert!(matches!(Pattern::None.split(&text, |_| ()), Err(Error::PreTokenTooLong { position: 0 })));
}

#[test]
fn names_and_published_spellings_are_known_again() {
    for pattern in &NAMED {
        assert_eq!(&Pattern::parse(pattern.name()).unwrap(), pattern);
        if let Some(regex) = pattern.regex() {
            assert_eq!(&Pattern::parse(regex).unwrap(), pattern);
        }
    }
    assert_eq!(Pattern::parse(r"\S").unwrap().name(), "regex");
}

#[test]
fn an_expression_that_calls_its_groups_is_refused() {
    for source in
        [r"(a|b\g<0>)", r"(a)\g0", r"(?>a*)(?R)?", r"(a)(?1)", r"(?<n>a)(?&n)", r"(a)(?-1)", r"(?P<n>a)(?P>n)"]
    {
        let error = Pattern::parse(source).unwrap_err().to_string();
        assert!(error.contains("expected an expression without calls"), "{source}: {error}");
    }
    for source in [r"(?i:a)\w+", r"a\\g|.", r"(?=[A-Z])(?!x)(?<=y).", r"(?-i)a+", r"(\(\?)R"] {
        assert!(Pattern::parse(source).is_ok(), "{source}");
    }
}
