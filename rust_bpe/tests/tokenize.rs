//! The files of the whole job equal those of a twin that encodes document by document, for any threads and blocks.

#[allow(dead_code)]
mod common;
mod folder;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::Generator;
use folder::Folder;
use rust_bpe::corpus::*;
use rust_bpe::encode::{Cache, Encoder, KnownWords};
use rust_bpe::monitor::Monitor;
use rust_bpe::pretokenize::Pattern;
use rust_bpe::special::Special;
use rust_bpe::tokenize::*;
use rust_bpe::train::{Stop, Ties};
use rust_bpe::vocabulary::{SpecialIds, Vocabulary};
use sha2::{Digest, Sha256};

const END: &str = "<|endoftext|>";
const USER: &str = "<|user|>";

fn job(path: &Path, out: &Path, tokenizer: Tokenizer) -> Job {
    let input = Input { path: path.into(), packing: Packing::None, format: Format::Text, side: Side::Train };
    let _ = fs::remove_dir_all(out);
    fs::create_dir_all(out).unwrap();
    Job {
        inputs: vec![input],
        field: "text".into(),
        limit_bytes: None,
        limit_tokens: None,
        records: None,
        tokenizer,
        words: None,
        specials: vec![END.into()],
        special_ids: SpecialIds::End,
        end_of_text: EndOfText::Auto,
        split: SplitRequest { method: SplitMethod::Auto, fraction: 0.1, seed: 0 },
        drop_duplicates: false,
        shard_tokens: None,
        vocabulary_only: false,
        n_threads: 1,
        block_bytes: BLOCK_BYTES,
        note_bytes: NOTE_BYTES,
        out: out.into(),
    }
}

fn bpe(vocab_size: Option<usize>) -> Bpe {
    Bpe {
        pattern: Pattern::Gpt2,
        alphabet: BaseAlphabet::Bytes,
        vocab_size,
        ties: Ties::Bytes,
        min_frequency: 1,
        max_token_bytes: None,
    }
}

fn run_job(job: Job) -> rust_bpe::Result<Report> {
    run(job, &Monitor::new())
}

fn ids(folder: &Path, name: &str) -> Vec<u16> {
    let bytes = fs::read(folder.join(name)).unwrap();
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// The offsets of an `.idx.npy`, whose header is checked.
fn offsets(folder: &Path, name: &str) -> Vec<u64> {
    let bytes = fs::read(folder.join(name)).unwrap();
    let (header, items) = bytes.split_at(128);
    let n_items = items.len() / 8;
    assert!(header.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<u8', 'fortran_order': False, 'shape': ("));
    assert!(String::from_utf8_lossy(header).contains(&format!("({n_items},)")));
    items.chunks_exact(8).map(|item| u64::from_le_bytes(item.try_into().unwrap())).collect()
}

/// Words, white space, special tokens and bytes that are not UTF-8.
fn sample(seed: u64, n_pieces: usize) -> Vec<u8> {
    let mut random = Generator::new(seed);
    let pieces: [&[u8]; 14] = [
        b"the ",
        b"cat",
        b" sat",
        b" on ",
        b"\n\n",
        b"   ",
        b"don't",
        "é".as_bytes(),
        "日本".as_bytes(),
        b"12345",
        b"\xff",
        END.as_bytes(),
        USER.as_bytes(),
        b"<|end",
    ];
    let weights = [9, 9, 9, 9, 3, 3, 3, 3, 3, 3, 1, 1, 1, 1];
    let mut text = Vec::new();
    for _ in 0..n_pieces {
        let mut number = random.below(weights.iter().sum());
        let piece = weights.iter().position(|&weight| {
            let here = number < weight;
            number = number.wrapping_sub(weight);
            here
        });
        text.extend(pieces[piece.unwrap()]);
    }
    text
}

fn split_at<'t>(text: &'t [u8], separator: &str) -> Vec<&'t [u8]> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(separator.len()).position(|window| window == separator.as_bytes()) {
        parts.push(&rest[..at]);
        rest = &rest[at + separator.len()..];
    }
    parts.push(rest);
    parts
}

/// Encodes one document by itself; `USER` is a token.
fn encode_document(encoder: &Encoder, document: &[u8]) -> Vec<u16> {
    let specials = encoder.vocabulary().special_tokens();
    let mut ids: Vec<u16> = Vec::new();
    for (number, text) in split_at(document, USER).into_iter().enumerate() {
        if number > 0 {
            ids.push(specials.id_of(USER).unwrap() as u16);
        }
        encoder.encode(text, Special::Text, &mut Cache::new(), &mut ids).unwrap();
    }
    ids.push(specials.id_of(END).unwrap() as u16);
    ids
}

#[test]
fn files_equal_the_twins_and_depend_neither_on_threads_nor_on_blocks() {
    let folder = Folder::new();
    let text = sample(1, 4000);
    let path = folder.write("text.txt", &text);
    let make = |name: &str, n_threads, block_bytes| {
        let out = folder.0.join(name);
        let mut job = job(&path, &out, Tokenizer::Bpe(bpe(Some(300))));
        job.specials = vec![END.into(), USER.into()];
        (job.n_threads, job.block_bytes) = (n_threads, block_bytes);
        (run_job(job).unwrap(), out)
    };
    let (report, first) = make("first", 1, BLOCK_BYTES);
    assert_eq!(report.vocabulary.vocab_size(), 300);
    assert_eq!(report.stop, Some(Stop::Size));
    let Split::Hash(_) = report.split else { panic!("{:?}", report.split) };

    let documents: Vec<_> = split_at(&text, END).into_iter().filter(|document| !document.is_empty()).collect();
    let encoder = Encoder::new(report.vocabulary.clone());
    let all: Vec<Vec<u16>> = documents.iter().map(|document| encode_document(&encoder, document)).collect();
    let val = report.val.as_ref().unwrap();
    for (name, side) in [("train", &report.train), ("val", val)] {
        let found = ids(&first, &format!("{name}.bin"));
        let offsets = offsets(&first, &format!("{name}.idx.npy"));
        assert_eq!(side.n_tokens, found.len() as u64);
        assert_eq!(side.n_documents + 1, offsets.len() as u64);
        let mut bytes = 0;
        for pair in offsets.windows(2) {
            let document = &found[pair[0] as usize..pair[1] as usize];
            let number = all.iter().position(|expected| expected == document).expect("a document of the text");
            bytes += documents[number].len() as u64;
        }
        assert_eq!(bytes, side.text_bytes);
    }
    assert_eq!(report.train.n_documents + val.n_documents, documents.len() as u64);
    assert_eq!(report.train.text_bytes + val.text_bytes, report.totals.text_bytes);

    for (n_threads, block_bytes) in [(2, BLOCK_BYTES), (1, 3), (2, 7), (3, 64), (2, 1000)] {
        let (other, out) = make("other", n_threads, block_bytes);
        assert_eq!((&other.train, &other.val), (&report.train, &report.val));
        for name in ["train.bin", "val.bin", "train.idx.npy", "val.idx.npy", "tokenizer.json"] {
            let same = fs::read(out.join(name)).unwrap() == fs::read(first.join(name)).unwrap();
            assert!(same, "{name} with {n_threads} threads and blocks of {block_bytes}");
        }
    }
}

/// With notes, with room for some of them, and without: then the text is read again.
#[test]
fn files_are_the_same_from_notes_and_from_the_text() {
    let folder = Folder::new();
    let (text, val) = (folder.write("text.txt", &sample(6, 3000)), folder.write("val.txt", &sample(7, 300)));
    let chars: String = String::from_utf8_lossy(&sample(6, 3000)).into_owned();
    let chars = folder.write("chars.txt", chars.as_bytes());
    let mut n_jobs = 0;
    for method in [SplitMethod::None, SplitMethod::Hash, SplitMethod::Tail] {
        for (alphabet, format) in [
            (BaseAlphabet::Bytes, Format::Text),
            (BaseAlphabet::Bytes, Format::Lines),
            (BaseAlphabet::Chars, Format::Text),
        ] {
            for (drop_duplicates, with_val, end_of_text) in
                [(false, false, EndOfText::Auto), (true, false, EndOfText::None), (false, true, EndOfText::Auto)]
            {
                let make = |note_bytes, n_threads| {
                    let out = folder.0.join("out");
                    let path = if alphabet == BaseAlphabet::Chars { &chars } else { &text };
                    let vocab_size = if alphabet == BaseAlphabet::Chars { None } else { Some(280) };
                    let mut job = job(path, &out, Tokenizer::Bpe(Bpe { alphabet, ..bpe(vocab_size) }));
                    job.specials = vec![END.into(), USER.into()];
                    job.inputs[0].format = format;
                    if with_val && alphabet == BaseAlphabet::Bytes {
                        job.inputs.push(Input { path: val.clone(), side: Side::Val, ..job.inputs[0].clone() });
                    }
                    job.split = SplitRequest { method, fraction: 0.1, seed: 0 };
                    (job.drop_duplicates, job.end_of_text) = (drop_duplicates, end_of_text.clone());
                    (job.note_bytes, job.n_threads, job.block_bytes) = (note_bytes, n_threads, 1000);
                    let report = run_job(job).unwrap();
                    let files: Vec<_> = ["train.bin", "val.bin", "train.idx.npy", "val.idx.npy", "tokenizer.json"]
                        .map(|name| fs::read(out.join(name)).ok())
                        .into();
                    let sources: Vec<_> = report.sources.iter().map(|source| source.sha256.clone()).collect();
                    (report.train, report.val, files, sources)
                };
                let expected = make(0, 1);
                assert!(expected.0.n_tokens > 1000 && expected.3.iter().all(|sha256| sha256.len() == 64));
                for (note_bytes, n_threads) in [(NOTE_BYTES, 1), (NOTE_BYTES, 3), (5000, 1), (5000, 2)] {
                    assert_eq!(make(note_bytes, n_threads), expected, "{method:?} {alphabet:?} {format:?}");
                    n_jobs += 1;
                }
            }
        }
    }
    assert_eq!(n_jobs, 108);
}

/// Of inputs and of token files, whoever hashes them: the reader (where there is a limit) or, beside the ids, the work.
#[test]
fn recorded_checksums_are_those_of_the_files() {
    let folder = Folder::new();
    let texts = [
        (folder.write("text.txt", &sample(10, 900)), Format::Text),
        (folder.write("empty.txt", b""), Format::Text),
        (folder.write("lines.txt", &sample(11, 300)), Format::Lines),
        (folder.write("json.jsonl", b"{\"text\": \"one\"}\n{\"text\": \"two\"}"), Format::Jsonl),
    ];
    let checksum = |path: &Path| {
        Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    for method in [SplitMethod::None, SplitMethod::Hash, SplitMethod::Tail] {
        for (limit_bytes, shard_tokens) in [(None, None), (None, Some(77)), (Some(2000), None)] {
            for (n_threads, block_bytes) in [(1, BLOCK_BYTES), (1, 50), (3, 50), (4, 1000)] {
                let out = folder.0.join("out");
                let mut job = job(&texts[0].0, &out, Tokenizer::Byte);
                let input = job.inputs[0].clone();
                let inputs = texts.iter().map(|(path, format)| (path.clone(), *format));
                job.inputs = inputs.map(|(path, format)| Input { path, format, ..input.clone() }).collect();
                job.split = SplitRequest { method, fraction: 0.1, seed: 0 };
                (job.limit_bytes, job.shard_tokens) = (limit_bytes, shard_tokens);
                (job.n_threads, job.block_bytes) = (n_threads, block_bytes);
                let report = run_job(job).unwrap();
                for (source, (path, _)) in report.sources.iter().zip(&texts) {
                    assert_eq!(source.sha256, checksum(path), "{} by {n_threads}", path.display());
                }
                for file in report.val.iter().chain([&report.train]).flat_map(|side| &side.files) {
                    assert_eq!(file.sha256, checksum(&out.join(&file.name)), "{} by {n_threads}", file.name);
                }
            }
        }
    }
}

/// The words that a job leaves beside its vocabulary make another one faster and change nothing.
#[test]
fn words_beside_a_vocabulary_change_no_ids() {
    let folder = Folder::new();
    let (text, other) = (folder.write("text.txt", &sample(8, 2000)), folder.write("other.txt", &sample(9, 2000)));
    let first = folder.0.join("first");
    let vocabulary = run_job(job(&text, &first, Tokenizer::Bpe(bpe(Some(300))))).unwrap().vocabulary;
    let given = |words: Option<&Path>, name: &str, n_threads| {
        let out = folder.0.join(name);
        let mut job = job(&other, &out, Tokenizer::Given(vocabulary.clone()));
        (job.words, job.n_threads, job.block_bytes) = (words.map(Into::into), n_threads, 2000);
        job.specials = Vec::new();
        run_job(job).unwrap();
        (fs::read(out.join("train.bin")).unwrap(), fs::read(out.join("val.bin")).unwrap(), out.join(WORDS_FILE))
    };
    let expected = given(None, "without", 1);
    let sha256 = Sha256::digest(fs::read(first.join("tokenizer.json")).unwrap()).into();
    let read =
        |path: &Path| KnownWords::from_bytes(&fs::read(path).unwrap_or_default(), &sha256, vocabulary.largest_id());
    let in_first = first.join(WORDS_FILE);
    assert!(read(&in_first).unwrap().len() > 20 && read(&expected.2).unwrap().len() > 20);
    for (path, n_threads) in [(&in_first, 1), (&expected.2, 3), (&other, 1), (&folder.0.join("none"), 2)] {
        let found = given(Some(path), "with", n_threads);
        assert!((found.0, found.1) == (expected.0.clone(), expected.1.clone()), "{}", path.display());
        // What was known before and what was met, each once.
        let words = read(&found.2).unwrap();
        let distinct: std::collections::HashSet<_> = words.iter().map(|(word, _)| word).collect();
        assert_eq!(distinct.len(), words.len());
        let encoder = Encoder::new(vocabulary.clone());
        for (word, tokens) in words.iter() {
            let mut ids: Vec<u32> = Vec::new();
            encoder.encode(word, Special::Text, &mut Cache::new(), &mut ids).unwrap();
            assert_eq!(ids, tokens);
        }
        let known_before = read(path).unwrap_or_default();
        assert!(known_before.iter().all(|(word, _)| distinct.contains(word)));
    }
}

/// Where nothing is split off, words are counted in the first pass; dropping duplicates takes passes of their own.
#[test]
fn words_counted_in_the_first_pass_make_the_same_vocabulary() {
    let folder = Folder::new();
    let (text, val) = (folder.write("text.txt", &sample(4, 3000)), folder.write("val.txt", &sample(5, 500)));
    let vocabulary = |drop_duplicates, has_val, n_threads| {
        let mut job = job(&text, &folder.0.join("out"), Tokenizer::Bpe(bpe(Some(300))));
        job.split = SplitRequest { method: SplitMethod::None, fraction: 0.0, seed: 0 };
        if has_val {
            job.inputs.push(Input { path: val.clone(), side: Side::Val, ..job.inputs[0].clone() });
        }
        (job.drop_duplicates, job.n_threads, job.block_bytes, job.vocabulary_only) =
            (drop_duplicates, n_threads, 512, true);
        let report = run_job(job).unwrap();
        (report.vocabulary.to_json(), report.n_words, report.n_pretokens, report.totals.n_documents)
    };
    let expected = vocabulary(true, false, 1);
    assert!(expected.1 > 10 && expected.2 > 1000);
    for (has_val, n_threads) in [(false, 1), (false, 3), (true, 1), (true, 3)] {
        assert_eq!(vocabulary(false, has_val, n_threads), expected);
    }
}

/// A given vocabulary's corpus is surveyed while it is encoded where nothing is split off, and before that where duplicates
/// are looked for: the same is found and written.
#[test]
fn a_survey_on_the_way_finds_what_one_before_finds() {
    let folder = Folder::new();
    let (text, val) = (folder.write("text.txt", &sample(4, 3000)), folder.write("val.txt", &sample(5, 500)));
    let vocabulary = run_job(job(&text, &folder.0.join("first"), Tokenizer::Bpe(bpe(Some(300))))).unwrap().vocabulary;
    let given = |drop_duplicates, has_val, n_threads| {
        let out = folder.0.join("out");
        let mut job = job(&text, &out, Tokenizer::Given(vocabulary.clone()));
        job.split = SplitRequest { method: SplitMethod::None, fraction: 0.0, seed: 0 };
        if has_val {
            job.inputs.push(Input { path: val.clone(), side: Side::Val, ..job.inputs[0].clone() });
        }
        (job.drop_duplicates, job.n_threads, job.block_bytes, job.specials) =
            (drop_duplicates, n_threads, 512, Vec::new());
        let report = run_job(job).unwrap();
        let sources: Vec<_> = report.sources.iter().map(|source| format!("{source:?}")).collect();
        (report.totals, sources, report.train, report.val, fs::read(out.join("train.idx.npy")).unwrap())
    };
    for has_val in [false, true] {
        let expected = given(true, has_val, 1);
        assert!(expected.0.n_documents > 10 && expected.0.n_lines > 10 && expected.3.is_some() == has_val);
        for n_threads in [1, 3] {
            assert_eq!(given(false, has_val, n_threads), expected);
        }
    }

    let empty = folder.write("empty.txt", END.as_bytes());
    let mut job = job(&empty, &folder.0.join("out"), Tokenizer::Given(vocabulary));
    (job.split.method, job.specials) = (SplitMethod::None, Vec::new());
    assert!(run_job(job).unwrap_err().to_string().contains("found only empty documents"));
}

#[test]
fn shards_joined_are_the_one_file() {
    let folder = Folder::new();
    let path = folder.write("text.txt", &sample(2, 800));
    let whole = folder.0.join("whole");
    run_job(job(&path, &whole, Tokenizer::Byte)).unwrap();
    let expected = fs::read(whole.join("train.bin")).unwrap();
    for shard_tokens in [1000, 4096, 1 << 40] {
        let out = folder.0.join("shards");
        let mut sharded = job(&path, &out, Tokenizer::Byte);
        (sharded.shard_tokens, sharded.block_bytes, sharded.n_threads) = (Some(shard_tokens), 300, 2);
        let report = run_job(sharded).unwrap();
        let contents: Vec<_> = report.train.files.iter().map(|file| fs::read(out.join(&file.name)).unwrap()).collect();
        assert_eq!(contents.concat(), expected);
        for (content, file) in contents.iter().zip(&report.train.files) {
            assert_eq!(content.len() as u64, 2 * file.n_tokens);
        }
        let full = report.train.files.split_last().unwrap().1;
        assert!(full.iter().all(|file| file.n_tokens == shard_tokens));
        assert_eq!(report.train.files[0].name, "train-00000.bin");
        assert_eq!(fs::read(out.join("train.idx.npy")).unwrap(), fs::read(whole.join("train.idx.npy")).unwrap());
    }
}

#[test]
fn bytes_characters_and_bare_documents() {
    let folder = Folder::new();
    let path = folder.write("text.txt", format!("bé{END}ab").as_bytes());
    let out = folder.0.join("out");
    let whole = |tokenizer, specials: &[&str], end_of_text| {
        let mut job = job(&path, &out, tokenizer);
        job.split.method = SplitMethod::None;
        job.specials = specials.iter().map(|name| name.to_string()).collect();
        job.end_of_text = end_of_text;
        run_job(job)
    };
    let report = whole(Tokenizer::Byte, &[END], EndOfText::Auto).unwrap();
    assert_eq!(ids(&out, "train.bin"), [98, 0xC3, 0xA9, 256, 97, 98, 256]);
    assert_eq!((report.end_of_text_id, report.val, report.vocabulary.vocab_size()), (Some(256), None, 257));
    assert!(!out.join("val.bin").exists());

    let report = whole(Tokenizer::Byte, &[], EndOfText::None).unwrap();
    assert_eq!(ids(&out, "train.bin"), [98, 0xC3, 0xA9, 97, 98]);
    assert_eq!((report.end_of_text_id, report.vocabulary.vocab_size()), (None, 256));
    assert_eq!(offsets(&out, "train.idx.npy"), [0, 3, 5]);

    let report = whole(Tokenizer::Char, &[END], EndOfText::Auto).unwrap();
    assert_eq!(ids(&out, "train.bin"), [1, 2, 3, 0, 1, 3]);
    assert_eq!(report.vocabulary.vocab_size(), 4);

    let error = whole(Tokenizer::Byte, &["<x>"], EndOfText::Auto).unwrap_err().to_string();
    assert!(error.contains("no special token ends a document"), "{error}");
    whole(Tokenizer::Byte, &["<x>"], EndOfText::Named("<x>".into())).unwrap();
}

#[test]
fn special_ids_in_front_end_documents_with_theirs() {
    let folder = Folder::new();
    let path = folder.write("text.txt", b"ab");
    let out = folder.0.join("out");
    let mut front = job(&path, &out, Tokenizer::Byte);
    front.split.method = SplitMethod::None;
    (front.specials, front.special_ids) = (Vec::new(), SpecialIds::Front);
    assert_eq!(run_job(front).unwrap().end_of_text_id, Some(2));
    assert_eq!(ids(&out, "train.bin"), [4 + 97, 4 + 98, 2]);
}

#[test]
fn a_given_vocabulary_is_used_as_it_is_and_limits_count_its_tokens() {
    let folder = Folder::new();
    let text = sample(5, 3000);
    let path = folder.write("text.txt", &text);
    let trained_out = folder.0.join("trained");
    let vocabulary = run_job(job(&path, &trained_out, Tokenizer::Bpe(bpe(Some(320))))).unwrap().vocabulary;
    let end = vocabulary.end_of_text_id().unwrap() as u16;

    let out = folder.0.join("out");
    for format in [Format::Text, Format::Lines] {
        let limited = |limit_tokens, n_threads, block_bytes| {
            let mut job = job(&path, &out, Tokenizer::Given(vocabulary.clone()));
            job.inputs[0].format = format;
            (job.limit_tokens, job.split.method) = (limit_tokens, SplitMethod::None);
            (job.n_threads, job.block_bytes) = (n_threads, block_bytes);
            run_job(job).unwrap();
            ids(&out, "train.bin")
        };
        let full = limited(None, 2, BLOCK_BYTES);
        for limit in [30, 100, 500, 1234] {
            let found = limited(Some(limit), 1, BLOCK_BYTES);
            assert!(found.len() <= limit as usize);
            // The document that crosses the limit is cut at a pre-token, and none here has 20 tokens.
            assert!(found.len() + 20 > limit as usize, "{} of {limit} tokens", found.len());
            let (last, before) = found.split_last().unwrap();
            assert_eq!((*last, before), (end, &full[..before.len()]));
            for (n_threads, block_bytes) in [(2, 50), (1, 333), (2, 5000)] {
                assert_eq!(limited(Some(limit), n_threads, block_bytes), found, "blocks of {block_bytes}");
            }
        }
        assert_eq!(limited(Some(1 << 40), 2, 100), full);
    }
}

#[test]
fn settings_that_cannot_be_are_refused_before_anything_is_read() {
    let missing = Path::new("no-such-file.txt");
    let folder = Folder::new();
    let out = folder.0.join("out");
    let refused = |change: &dyn Fn(&mut Job)| {
        let mut job = job(missing, &out, Tokenizer::Bpe(bpe(Some(300))));
        change(&mut job);
        match run_job(job).unwrap_err() {
            rust_bpe::Error::Setting(message) => message,
            other => panic!("{other}"),
        }
    };
    let small = refused(&|job| job.tokenizer = Tokenizer::Bpe(bpe(Some(256))));
    assert_eq!(small, "--vocab-size 256: expected at least 257 (256 bytes and 1 special token)");
    assert!(refused(&|job| job.limit_tokens = Some(5)).contains("--limit-tokens needs a vocabulary"));
    assert!(refused(&|job| job.end_of_text = EndOfText::Named("<e>".into())).contains("--end-of-text <e>"));
    let given = Arc::new(Vocabulary::byte(&[END.into()], SpecialIds::End).unwrap());
    let unknown = refused(&|job| {
        job.tokenizer = Tokenizer::Given(given.clone());
        job.specials.push(USER.into());
    });
    assert!(unknown.contains("--special <|user|>"), "{unknown}");
}

#[test]
fn text_that_cannot_be_encoded_says_where_it_stands() {
    let folder = Folder::new();
    let out = folder.0.join("out");
    let latin = folder.write("latin.txt", format!("good{END}caf\u{e9}").as_bytes());
    let mut content = fs::read(&latin).unwrap();
    content.truncate(content.len() - 2);
    content.extend(b"\xe9 au lait");
    fs::write(&latin, content).unwrap();
    let mut chars = job(&latin, &out, Tokenizer::Char);
    chars.split.method = SplitMethod::None;
    let error = run_job(chars).unwrap_err().to_string();
    assert!(error.contains("latin.txt: document 2: expected UTF-8") && error.ends_with("at byte 3"), "{error}");

    let empty = folder.write("empty.txt", b"");
    let error = run_job(job(&empty, &out, Tokenizer::Byte)).unwrap_err().to_string();
    assert!(error.ends_with("empty.txt: expected text, found only empty documents"), "{error}");
}

#[test]
fn a_disk_that_refuses_is_an_error_with_the_file() {
    let folder = Folder::new();
    let path =
        folder.write("text.txt", b"some text that is long enough to be split into two halves, one for each side");
    let out = folder.0.join("out");
    for (tokenizer, n_threads) in [(Tokenizer::Byte, 1), (Tokenizer::Bpe(bpe(None)), 1), (Tokenizer::Bpe(bpe(None)), 4)]
    {
        let mut job = job(&path, &out, tokenizer);
        (job.n_threads, job.block_bytes) = (n_threads, 4);
        std::os::unix::fs::symlink("/dev/full", out.join("train.bin")).unwrap();
        let error = run_job(job).unwrap_err().to_string();
        assert!(error.contains("train.bin: No space left on device"), "{error}");
    }
}
