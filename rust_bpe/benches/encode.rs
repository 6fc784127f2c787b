//! Megabytes a second of encoding to ids in memory on one thread, cold and warm, and the time a byte of long unbroken
//! inputs.
//!
//!     cargo bench --bench encode -- VOCABULARY FILE...
//!
//! VOCABULARY is a tokenizer.json or a published .tiktoken file. Cold is the first pass with a new cache, warm the best
//! of three more with the same one. Seconds are those this thread had a processor, where the system tells (Linux), so
//! that other work on the machine disturbs less.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rust_bpe::encode::{Cache, Encoder, Id};
use rust_bpe::special::Special;
use rust_bpe::token::Dtype;
use rust_bpe::vocabulary::Vocabulary;

fn main() {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: run it with cargo bench");
        std::process::exit(1);
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let Some((vocabulary, files)) = arguments.split_first() else {
        return eprintln!("usage: cargo bench --bench encode -- VOCABULARY FILE...");
    };
    let begin = Instant::now();
    let path = Path::new(vocabulary);
    let loaded = if vocabulary.ends_with(".tiktoken") {
        Vocabulary::from_tiktoken(path, None, None)
    } else {
        Vocabulary::from_huggingface(path)
    };
    let encoder = match loaded {
        Ok(vocabulary) => Encoder::new(Arc::new(vocabulary)),
        Err(error) => return eprintln!("{error}"),
    };
    println!("{vocabulary}: ready after {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    for file in files {
        match std::fs::read(file) {
            Ok(text) => {
                let (cold, warm, n_ids) = speeds(&encoder, &text, text.len());
                let name = file.rsplit('/').next().unwrap_or(file);
                println!("{name:<20} {cold:>6.0} MB/s cold {warm:>6.0} warm {n_ids:>12} ids");
            }
            Err(error) => eprintln!("{file}: {error}"),
        }
    }
    long_inputs(&encoder);
}

/// 1 MB and 16 MB of one thing: the time a byte must not grow.
fn long_inputs(encoder: &Encoder) {
    const MEGABYTE: usize = 1 << 20;
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    let random_bytes: Vec<u8> = (0..16 * MEGABYTE).map(|_| random()).collect();
    let inputs: [(&str, &[u8]); 8] = [
        ("a", b"a"),
        ("spaces", b" "),
        ("digits", b"7"),
        ("digits 0-9", b"3141592653589793"),
        ("CJK", "中".as_bytes()),
        ("CJK, mixed", "語言模型從文字中學習".as_bytes()),
        ("letters", b"supercalifragilisticexpialidocious"),
        ("random bytes", &random_bytes),
    ];
    println!("{:<20} MB/s of 1 MB, of 16 MB, time a byte", "");
    for (name, unit) in inputs {
        let text = unit.repeat(16 * MEGABYTE / unit.len());
        let [short, long] = [MEGABYTE, 16 * MEGABYTE].map(|size| speeds(encoder, &text, size).0);
        println!("{name:<20} {short:>6.1} {long:>6.1} {:>6.2}", short / long);
    }
}

/// The speeds of a text that is encoded in texts of `size` bytes: with an empty cache for each, the best of three times
/// with one cache for all; and how many ids there are.
fn speeds(encoder: &Encoder, text: &[u8], size: usize) -> (f64, f64, usize) {
    match encoder.vocabulary().dtype() {
        Dtype::U16 => speeds_of::<u16>(encoder, text, size),
        Dtype::U32 => speeds_of::<u32>(encoder, text, size),
    }
}

fn speeds_of<T: Id>(encoder: &Encoder, text: &[u8], size: usize) -> (f64, f64, usize) {
    let mut cache = Cache::new();
    // Touched beforehand, as a job's buffers are: the time is the encoder's, not the kernel's for new pages. (`vec!` would
    // take zeros from the kernel, which makes their pages at the first touch.)
    let mut ids: Vec<T> = Vec::with_capacity(text.len());
    ids.resize(text.len(), T::default());
    let mut speed = |is_cold: bool| {
        ids.clear();
        let (begin, begin_s) = (Instant::now(), processor_s());
        for part in text.chunks(size) {
            if is_cold {
                cache = Cache::new();
            }
            encoder.encode(part, Special::Text, &mut cache, &mut ids).expect("text that can be encoded");
        }
        let elapsed_s = begin.elapsed().as_secs_f64();
        let seconds = begin_s.zip(processor_s()).map_or(elapsed_s, |(begin, end)| end - begin);
        text.len() as f64 / seconds / 1e6
    };
    let cold = speed(true);
    let warm = (0..3).map(|_| speed(false)).fold(0.0, f64::max);
    (cold, warm, ids.len())
}

/// Seconds that this thread has run.
fn processor_s() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse::<f64>().ok().map(|nanoseconds| nanoseconds / 1e9)
}
