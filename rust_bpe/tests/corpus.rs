//! Documents, splits and blocks agree with a twin that holds whole files in memory, for any block size and thread count.

#[allow(dead_code)]
mod common;
mod folder;

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use common::Generator;
use folder::Folder;
use rust_bpe::corpus::*;
use rust_bpe::monitor::Monitor;
use rust_bpe::pretokenize::Pattern;

const END: &str = "<|endoftext|>";
const BLOCK_SIZES: [usize; 6] = [1, 2, 5, 17, 100, BLOCK_BYTES];

fn corpus(files: &[(PathBuf, Format, Side)], markers: &[(&str, bool)], cut: Cut, block_bytes: usize) -> Corpus {
    let inputs = files
        .iter()
        .map(|(path, format, side)| Input { path: path.clone(), packing: Packing::None, format: *format, side: *side })
        .collect();
    let markers = Markers::new(markers.iter().map(|(string, ends)| (string.to_string(), *ends)).collect()).unwrap();
    Corpus { inputs, markers, field: Field::new("text"), cut, limits: Vec::new(), block_bytes, records: None }
}

fn request(method: SplitMethod, fraction: f64) -> SplitRequest {
    SplitRequest { method, fraction, seed: 0 }
}

/// The documents of both sides, as the blocks give them, and the totals.
fn read(
    corpus: &Corpus,
    request: SplitRequest,
    n_threads: usize,
    drop_duplicates: bool,
) -> rust_bpe::Result<([Vec<Vec<u8>>; 2], Totals)> {
    let monitor = Monitor::new();
    let survey = Survey::of(corpus, &SurveyOptions { split: request, drop_duplicates, n_threads }, &monitor)?;
    let split = Split::choose(&request, &survey)?;
    let blocks = Mutex::new(Vec::new());
    corpus.each_block(
        Pass::Again(&survey.sources),
        n_threads,
        &monitor,
        || (),
        |(), block| {
            let mut parts = Vec::new();
            survey.parts(corpus, &split, block, |part| {
                parts.push((part.side, part.text.to_vec(), part.ends));
                Ok(())
            })?;
            blocks.lock().unwrap().push((block.index, parts));
            Ok(())
        },
    )?;
    let mut blocks = blocks.into_inner().unwrap();
    blocks.sort_by_key(|(index, _)| *index);
    let mut documents: [Vec<Vec<u8>>; 2] = Default::default();
    let mut open: [Vec<u8>; 2] = Default::default();
    for (side, text, ends) in blocks.into_iter().flat_map(|(_, parts)| parts) {
        let at = side as usize;
        open[at].extend(text);
        if ends {
            documents[at].push(std::mem::take(&mut open[at]));
        }
    }
    assert!(open.iter().all(Vec::is_empty), "every document ends");
    Ok((documents, survey.totals))
}

/// The documents of one file, empty ones included.
fn naive_documents(content: &[u8], format: Format, separators: &[&str]) -> Vec<Vec<u8>> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < content.len() {
        let separator = match format {
            Format::Text => {
                separators.iter().filter(|s| content[at..].starts_with(s.as_bytes())).map(|s| s.len()).max()
            }
            _ => (content[at] == b'\n').then_some(1),
        };
        let Some(length) = separator else {
            at += 1;
            continue;
        };
        let mut document = &content[start..at];
        if format == Format::Lines {
            document = document.strip_suffix(b"\r").unwrap_or(document);
        }
        documents.push(document.to_vec());
        at += length;
        start = at;
    }
    if start < content.len() || (documents.is_empty() && format == Format::Text) {
        documents.push(content[start..].to_vec());
    }
    documents
}

fn naive_tail(documents: &[Vec<u8>], fraction: f64) -> [Vec<Vec<u8>>; 2] {
    let total: usize = documents.iter().map(Vec::len).sum();
    let mut left = total - (fraction * total as f64).floor() as usize;
    let mut sides: [Vec<Vec<u8>>; 2] = Default::default();
    let mut in_tail = false;
    for document in documents {
        if in_tail || left == 0 {
            sides[1].push(document.clone());
        } else if document.len() <= left {
            left -= document.len();
            sides[0].push(document.clone());
        } else {
            let starts: Vec<_> = (left.saturating_sub(3)..=left).filter(|&p| document[p] & 0xC0 != 0x80).collect();
            let cut = starts.last().copied().unwrap_or(left);
            if cut > 0 {
                sides[0].push(document[..cut].to_vec());
            }
            sides[1].push(document[cut..].to_vec());
            in_tail = true;
        }
    }
    sides
}

fn random_text(random: &mut Generator, pieces: &[&[u8]], n: usize) -> Vec<u8> {
    (0..n).flat_map(|_| pieces[random.below(pieces.len() as u64) as usize].to_vec()).collect()
}

#[test]
fn documents_and_tails_equal_the_twins() {
    let folder = Folder::new();
    let mut random = Generator::new(7);
    let other = "<|endoftext|>>";
    let pieces: [&[u8]; 12] = [
        b"a",
        b" word",
        "é".as_bytes(),
        "😀".as_bytes(),
        b"\n",
        b"\r\n",
        b"\r",
        END.as_bytes(),
        other.as_bytes(),
        b"<|endof",
        b"\x80\x80",
        b"\xf0\x9f",
    ];
    let mut n_splits = 0;
    for round in 0..120 {
        let format = [Format::Text, Format::Lines][round % 2];
        let n_files = 1 + random.below(3);
        let mut files = Vec::new();
        let mut all = Vec::new();
        for number in 0..n_files {
            let size = [0, 1, 5, 40][random.below(4) as usize];
            let content = random_text(&mut random, &pieces, size);
            all.extend(naive_documents(&content, format, &[END, other]));
            files.push((folder.write(&format!("{number}.txt"), &content), format, Side::Train));
        }
        let n_empty = all.iter().filter(|document| document.is_empty()).count() as u64;
        all.retain(|document| !document.is_empty());
        let expected = naive_tail(&all, 0.3);
        for block_bytes in BLOCK_SIZES {
            for cut in [Cut::Characters, Cut::Pretokens(Pattern::Gpt2), Cut::Pretokens(Pattern::None)] {
                let corpus = corpus(&files, &[(END, true), (other, true)], cut, block_bytes);
                let n_threads = 1 + random.below(2) as usize;
                let (whole, totals) = read(&corpus, request(SplitMethod::None, 0.0), n_threads, false).unwrap();
                assert_eq!(whole, [all.clone(), vec![]], "round {round}, blocks of {block_bytes}");
                assert_eq!(totals.n_documents, all.len() as u64);
                assert_eq!(totals.n_empty, n_empty);
                assert_eq!(totals.text_bytes, all.iter().map(Vec::len).sum::<usize>() as u64);
                let tail = read(&corpus, request(SplitMethod::Tail, 0.3), n_threads, false);
                if expected.iter().all(|side| !side.is_empty()) {
                    n_splits += 1;
                    assert_eq!(tail.unwrap().0, expected, "round {round}, blocks of {block_bytes}");
                } else {
                    assert!(tail.unwrap_err().to_string().contains("leaves one side without text"));
                }
            }
        }
    }
    assert!(n_splits > 500, "only {n_splits} splits were compared");
}

#[test]
fn a_hash_split_is_of_documents_and_does_not_depend_on_blocks() {
    let folder = Folder::new();
    let content: String = (0..500).map(|number| format!("line {number}\n")).collect();
    let files = [(folder.write("a.txt", content.as_bytes()), Format::Lines, Side::Train)];
    let hash = request(SplitMethod::Auto, 0.1);
    let first = read(&corpus(&files, &[], Cut::Characters, BLOCK_BYTES), hash, 1, false).unwrap();
    assert!((30..80).contains(&first.0[1].len()), "{} of 500 documents", first.0[1].len());
    assert_eq!(first.1.n_hash_val, first.0[1].len() as u64);
    assert_eq!(first.1.hash_val_bytes, first.0[1].concat().len() as u64);
    for block_bytes in BLOCK_SIZES {
        assert_eq!(read(&corpus(&files, &[], Cut::Characters, block_bytes), hash, 2, false).unwrap(), first);
    }
}

#[test]
fn auto_takes_the_tail_where_the_hash_gives_too_little() {
    let folder = Folder::new();
    let content = format!("{}{END}{}", "a".repeat(900), "b".repeat(100));
    let files = [(folder.write("a.txt", content.as_bytes()), Format::Text, Side::Train)];
    let corpus = corpus(&files, &[(END, true)], Cut::Characters, 64);
    let (sides, totals) = read(&corpus, request(SplitMethod::Auto, 0.05), 2, false).unwrap();
    assert_eq!(totals.n_hash_val, 0);
    assert_eq!(sides[0], ["a".repeat(900).into_bytes(), "b".repeat(50).into_bytes()]);
    assert_eq!(sides[1], ["b".repeat(50).into_bytes()]);
    let error = read(&corpus, request(SplitMethod::Hash, 0.05), 2, false).unwrap_err().to_string();
    assert!(error.contains("gives 0 of 2 documents"), "{error}");
}

#[test]
fn validation_text_of_its_own_is_not_split_and_not_counted() {
    let folder = Folder::new();
    let train = folder.write("train.txt", b"one two three");
    let val = folder.write("val.txt", b"four");
    let files = [(train, Format::Text, Side::Train), (val, Format::Text, Side::Val)];
    let (sides, totals) =
        read(&corpus(&files, &[], Cut::Characters, 3), request(SplitMethod::None, 0.0), 2, false).unwrap();
    assert_eq!(sides, [vec![b"one two three".to_vec()], vec![b"four".to_vec()]]);
    assert_eq!((totals.text_bytes, totals.val_text_bytes, totals.n_val_documents), (13, 4, 1));
}

#[test]
fn duplicates_are_dropped_also_when_they_span_blocks() {
    let folder = Folder::new();
    let mut random = Generator::new(3);
    let words: Vec<String> = (0..4).map(|number| format!("document {number} ").repeat(1 + 3 * number)).collect();
    for _ in 0..20 {
        let documents: Vec<&str> = (0..30).map(|_| words[random.below(4) as usize].as_str()).collect();
        let mut seen = Vec::new();
        let unique: Vec<Vec<u8>> = documents
            .iter()
            .filter(|d| {
                !seen.contains(*d) && {
                    seen.push(*d);
                    true
                }
            })
            .map(|d| d.as_bytes().to_vec())
            .collect();
        let files = [(folder.write("a.txt", documents.join(END).as_bytes()), Format::Text, Side::Train)];
        let expected = naive_tail(&unique, 0.2);
        for block_bytes in BLOCK_SIZES {
            let corpus = corpus(&files, &[(END, true)], Cut::Characters, block_bytes);
            let (sides, totals) = read(&corpus, request(SplitMethod::Tail, 0.2), 2, true).unwrap();
            assert_eq!(sides, expected);
            assert_eq!(totals.n_duplicates, (documents.len() - unique.len()) as u64);
        }
    }
}

#[test]
fn json_lines_give_their_field_and_errors_their_line() {
    let folder = Folder::new();
    let good = "{\"text\": \"a\\nb\"}\n\n{\"id\": 1, \"text\": \"\"}\r\n{\"text\": \"<|endoftext|>\"}";
    let files = [(folder.write("good.jsonl", good.as_bytes()), Format::Jsonl, Side::Train)];
    for block_bytes in BLOCK_SIZES {
        let corpus = corpus(&files, &[(END, true)], Cut::Characters, block_bytes);
        let (sides, totals) = read(&corpus, request(SplitMethod::None, 0.0), 2, false).unwrap();
        assert_eq!(sides[0], [b"a\nb".to_vec(), END.as_bytes().to_vec()]);
        assert_eq!((totals.n_empty, totals.n_lines), (2, 0));
    }
    let bad = "{\"text\": \"a\"}\n".repeat(300) + "{\"title\": 1}\n" + &"{}\n".repeat(300);
    let files = [(folder.write("bad.jsonl", bad.as_bytes()), Format::Jsonl, Side::Train)];
    for block_bytes in BLOCK_SIZES {
        let corpus = corpus(&files, &[], Cut::Characters, block_bytes);
        let error = read(&corpus, request(SplitMethod::None, 0.0), 2, false).unwrap_err().to_string();
        assert!(error.contains("bad.jsonl: line 301: expected a field \"text\""), "{error}");
    }
}

#[test]
fn a_limit_cuts_at_a_character_and_drops_half_a_record() {
    let folder = Folder::new();
    let text = folder.write("a.txt", "aé😀z".as_bytes());
    let json = folder.write("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":\"b\"}");
    let read_limited = |path: &PathBuf, format, limit| {
        let mut corpus = corpus(&[(path.clone(), format, Side::Train)], &[], Cut::Characters, 2);
        corpus.limits = vec![Some(limit)];
        read(&corpus, request(SplitMethod::None, 0.0), 1, false).unwrap().0[0].concat()
    };
    for (limit, expected) in [(1, "a"), (2, "a"), (3, "aé"), (6, "aé"), (7, "aé😀"), (8, "aé😀z"), (9, "aé😀z")]
    {
        assert_eq!(read_limited(&text, Format::Text, limit), expected.as_bytes(), "{limit}");
        assert_eq!(read_limited(&text, Format::Lines, limit), expected.as_bytes(), "{limit}");
    }
    for (limit, expected) in [(12, ""), (13, "a"), (24, "a"), (25, "ab"), (26, "ab")] {
        assert_eq!(read_limited(&json, Format::Jsonl, limit), expected.as_bytes(), "{limit}");
    }
}

#[test]
fn checksums_are_of_whole_files_whatever_the_limit() {
    let folder = Folder::new();
    let path = folder.write("a.txt", b"abc");
    for limit in [None, Some(1)] {
        let mut corpus = corpus(&[(path.clone(), Format::Text, Side::Train)], &[], Cut::Characters, 2);
        corpus.limits = vec![limit];
        let options = SurveyOptions { split: request(SplitMethod::None, 0.0), drop_duplicates: false, n_threads: 2 };
        let survey = Survey::of(&corpus, &options, &Monitor::new()).unwrap();
        let pass = Pass::Last(&survey.sources);
        let (_, sources) = corpus.each_block(pass, 2, &Monitor::new(), || (), |(), _| Ok(())).unwrap();
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((sources[0].sha256.as_str(), sources[0].size_bytes), (expected, 3));
    }
}

#[test]
fn an_input_that_changes_between_passes_is_an_error() {
    let folder = Folder::new();
    let path = folder.write("a.txt", b"some text");
    let corpus = corpus(&[(path.clone(), Format::Text, Side::Train)], &[], Cut::Characters, 4);
    let options = SurveyOptions { split: request(SplitMethod::None, 0.0), drop_duplicates: false, n_threads: 1 };
    let survey = Survey::of(&corpus, &options, &Monitor::new()).unwrap();
    fs::write(&path, b"some").unwrap();
    let again = corpus.each_block(Pass::Again(&survey.sources), 1, &Monitor::new(), || (), |(), _| Ok(()));
    assert!(again.unwrap_err().to_string().contains("changed while it was read"));
}

#[test]
fn missing_files_and_folders_are_errors_with_their_path() {
    let folder = Folder::new();
    for (path, message) in
        [(folder.0.join("none.txt"), "none.txt: No such file"), (folder.0.clone(), "expected a file")]
    {
        let corpus = corpus(&[(path, Format::Text, Side::Train)], &[], Cut::Characters, 4);
        let error = read(&corpus, request(SplitMethod::None, 0.0), 2, false).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_cancelled_monitor_stops_every_thread() {
    let folder = Folder::new();
    let path = folder.write("a.txt", &[b'a'; 1000]);
    let corpus = corpus(&[(path, Format::Text, Side::Train)], &[], Cut::Characters, 10);
    let monitor = Monitor::new();
    monitor.cancel();
    let stopped = corpus.each_block(Pass::First, 2, &monitor, || (), |(), _| Ok(()));
    assert!(matches!(stopped, Err(rust_bpe::Error::Cancelled)));
}

/// The thread that waits for an earlier one ends because of the other's error, by a block that comes before.
#[test]
fn an_error_is_not_lost_to_the_threads_that_it_frees() {
    let folder = Folder::new();
    let path = folder.write("a.txt", b"one two three");
    let corpus = corpus(&[(path, Format::Text, Side::Train)], &[], Cut::Characters, 4);
    let failed = std::sync::atomic::AtomicBool::new(false);
    let work = |(): &mut (), block: &mut Block| {
        if block.index > 0 {
            failed.store(true, std::sync::atomic::Ordering::SeqCst);
            return Err(rust_bpe::Error::Setting("no".to_owned()));
        }
        while !failed.load(std::sync::atomic::Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Err(rust_bpe::Error::Cancelled)
    };
    for _ in 0..20 {
        failed.store(false, std::sync::atomic::Ordering::SeqCst);
        let outcome = corpus.each_block(Pass::First, 2, &Monitor::new(), || (), work);
        assert!(matches!(&outcome, Err(rust_bpe::Error::Setting(_))), "{:?}", outcome.err());
    }
}
