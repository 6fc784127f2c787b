//! Times training on a text file: counting and merging, apart.
//!
//! `cargo bench --bench train -- FILE [VOCAB_SIZE] [THREADS] [bytes|ids|huggingface] [REPEATS]` prints one JSON line per
//! repeat. The file is one text, split by the gpt2 pattern; 16,000 ids of it or more are usual.

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use rust_bpe::monitor::Monitor;
use rust_bpe::pretokenize::Pattern;
use rust_bpe::train::{Alphabet, Ties, TrainOptions, train};
use rust_bpe::words::{WordCounter, Words};

const BLOCK_BYTES: usize = 1 << 20;

fn main() {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: run `cargo bench --bench train`");
        std::process::exit(1);
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(path) = arguments.first() else {
        eprintln!("nothing timed: give a text file (cargo bench --bench train -- FILE)");
        return;
    };
    let number = |index: usize, default: usize| arguments.get(index).map_or(default, |n| n.parse().expect("a number"));
    let (vocab_size, threads, repeats) = (number(1, 32_000), number(2, 1), number(4, 3));
    let ties = match arguments.get(3).map_or("bytes", String::as_str) {
        "ids" => Ties::Ids,
        "huggingface" => Ties::HuggingFace,
        _ => Ties::Bytes,
    };
    let text = std::fs::read(path).expect("a readable file");
    let options = TrainOptions { ties, threads, ..TrainOptions::new(vocab_size) };
    for _ in 0..repeats {
        let (start, cpu_start) = (Instant::now(), cpu_s());
        let words = count(&text, threads);
        let (counting_s, counting_cpu_s) = (start.elapsed().as_secs_f64(), cpu_s() - cpu_start);
        let trained = train(&words, &Alphabet::Bytes, &options, &Monitor::new()).expect("valid options");
        let (total_s, total_cpu_s) = (start.elapsed().as_secs_f64(), cpu_s() - cpu_start);
        let digest =
            trained.merges.iter().flat_map(|&(left, right)| [left, right]).fold(0, |digest: u64, id| {
                (digest ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
            });
        println!(
            "{{\"file\": {path:?}, \"bytes\": {}, \"vocab_size\": {vocab_size}, \"threads\": {threads}, \"ties\": \"{ties:?}\", \
             \"total_s\": {total_s:.4}, \"counting_s\": {counting_s:.4}, \"merging_s\": {:.4}, \"cpu_s\": {total_cpu_s:.4}, \
             \"counting_cpu_s\": {counting_cpu_s:.4}, \"words\": {}, \"pretokens\": {}, \"merges\": {}, \
             \"digest\": \"{digest:016x}\", \"peak_rss_mb\": {:.1}}}",
            text.len(),
            total_s - counting_s,
            words.len(),
            words.n_pretokens(),
            trained.merges.len(),
            peak_rss_mb(),
        );
    }
}

/// Threads take blocks in turn and cut them where the pattern surely has a boundary.
fn count(text: &[u8], threads: usize) -> Words {
    let pattern = Pattern::Gpt2;
    let rest = Mutex::new(text);
    let take = || {
        let mut rest = rest.lock().expect("no panic");
        let mut size = BLOCK_BYTES;
        let cut = loop {
            if size >= rest.len() {
                break rest.len();
            } else if let Some(cut) = pattern.safe_cut(&rest[..size]) {
                break cut;
            }
            size *= 2;
        };
        let block;
        (block, *rest) = rest.split_at(cut);
        block
    };
    let work = || {
        let mut counter = WordCounter::new();
        loop {
            match take() {
                [] => return counter,
                block => counter.add(&pattern, block).expect("short pre-tokens"),
            }
        }
    };
    let counters: Vec<WordCounter> = thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).chain([own]).collect()
    });
    Words::merge(&counters, threads).expect("counts that fit")
}

/// Processor time of the calling thread, which a busy machine does not change; 0 where Linux does not tell.
fn cpu_s() -> f64 {
    let nanoseconds = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    nanoseconds.and_then(|line| line.split(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
