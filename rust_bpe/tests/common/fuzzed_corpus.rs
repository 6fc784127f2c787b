//! What the fuzz target of the inputs checks: any file of any format, packed or not, gives the same documents or the
//! same error whatever the blocks.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rust_bpe::corpus::*;
use rust_bpe::monitor::Monitor;
use rust_bpe::pretokenize::Pattern;

/// The first two bytes choose packing, format, cuts and limit, and the size of a block; the rest is the file.
pub fn corpus(data: &[u8]) {
    let [choice, block, file @ ..] = data else { return };
    let choice = usize::from(*choice);
    let packing = [Packing::None, Packing::Gzip, Packing::Zstd, Packing::Xz][choice % 4];
    let format = [Format::Text, Format::Lines, Format::Jsonl, Format::Jsonl][choice / 4 % 4];
    let limit = (choice & 16 != 0).then_some(40);
    let cut = if choice & 32 == 0 { Cut::Characters } else { Cut::Pretokens(Pattern::Gpt2) };
    let path = file_of_this_process();
    std::fs::write(path, file).expect("a folder for temporary files");
    let corpus = |block_bytes| Corpus {
        inputs: vec![Input { path: path.into(), packing, format, side: Side::Train }],
        markers: Markers::new(vec![("<|endoftext|>".into(), true), ("<|a|>".into(), false)]).expect("two strings"),
        field: Field::new("text"),
        cut: cut.clone(),
        limits: vec![limit],
        block_bytes,
        records: None,
    };
    let whole = corpus(BLOCK_BYTES).documents(&Monitor::new());
    let blocks = corpus(usize::from(*block) + 1).documents(&Monitor::new());
    match (whole, blocks) {
        (Ok(whole), Ok(blocks)) => {
            assert_eq!(blocks, whole);
            if packing == Packing::None && format == Format::Lines && limit.is_none() {
                assert_eq!(whole, lines(file));
            }
        }
        // Of a damaged packing and a damaged record, which is met first depends on what is unpacked at once.
        (Err(_), Err(_)) if packing != Packing::None => {}
        (whole, blocks) => assert_eq!(blocks.map_err(|e| e.to_string()), whole.map_err(|e| e.to_string())),
    }
}

fn lines(file: &[u8]) -> Vec<Vec<u8>> {
    let lines = file.split(|&byte| byte == b'\n').enumerate();
    let ended = file.iter().filter(|&&byte| byte == b'\n').count();
    let text = lines.map(|(number, line)| if number < ended { line.strip_suffix(b"\r").unwrap_or(line) } else { line });
    text.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

fn file_of_this_process() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| std::env::temp_dir().join(format!("rust-bpe-fuzzed-{}", std::process::id())))
}
