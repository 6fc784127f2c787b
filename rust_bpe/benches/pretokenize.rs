//! Megabytes a second of every pattern by every engine, on one thread, and the time a byte of long unbroken inputs.
//!
//!     cargo bench --bench pretokenize -- FILE...

use std::time::Instant;

use rust_bpe::pretokenize::{Engine, PRETOKEN_BATCH, Pattern};

const PATTERNS: [&str; 5] = ["gpt2", "cl100k", "llama3", "o200k", "whitespace"];
const ROUNDS: usize = 3;

fn main() {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: run it with cargo bench");
        std::process::exit(1);
    }
    for path in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        match std::fs::read(&path) {
            Ok(text) => speeds(&path, &text),
            Err(error) => eprintln!("{path}: {error}"),
        }
    }
    long_inputs();
}

fn speeds(name: &str, text: &[u8]) {
    println!("{name}: {:.1} MB", text.len() as f64 / 1e6);
    for pattern in PATTERNS.map(|name| Pattern::parse(name).expect("a name")) {
        print!("  {:<12}", pattern.name());
        for engine in Engine::ALL {
            let (n_pretokens, seconds) = best_of(ROUNDS, || count(&pattern, engine, text));
            print!("{engine:?} {:>6.0} MB/s  ", text.len() as f64 / seconds / 1e6);
            if engine == Engine::best() {
                println!("{n_pretokens} pre-tokens");
            }
        }
    }
}

/// 1 MB and 16 MB of one thing: the time a byte must not grow.
fn long_inputs() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    let random_bytes: Vec<u8> = (0..1 << 16).map(|_| random()).collect();
    let inputs: [(&str, &[u8]); 7] = [
        ("a", b"a"),
        ("spaces", b" "),
        ("digits", b"7"),
        ("CJK", "中".as_bytes()),
        ("line ends", b"\n"),
        ("capitals", "Aª".as_bytes()),
        ("random bytes", &random_bytes),
    ];
    for (name, unit) in inputs {
        println!("{name}: MB/s of 1 MB, of 16 MB");
        for pattern in PATTERNS.map(|name| Pattern::parse(name).expect("a name")) {
            print!("  {:<12}", pattern.name());
            for size in [1 << 20, 16 << 20] {
                let text = unit.repeat(size / unit.len());
                let (_, seconds) = best_of(2, || count(&pattern, Engine::best(), &text));
                print!("{:>7.0}", text.len() as f64 / seconds / 1e6);
            }
            println!();
        }
    }
}

fn count(pattern: &Pattern, engine: Engine, text: &[u8]) -> usize {
    let mut ends = Vec::with_capacity(PRETOKEN_BATCH);
    let mut splitter = pattern.splitter_by(engine, text);
    let (mut n_pretokens, mut start) = (0, 0);
    while start < text.len() {
        splitter.next(start, &mut ends).expect("no pre-token is too long");
        n_pretokens += ends.len();
        start = *ends.last().expect("not at the end");
    }
    n_pretokens
}

/// Seconds of processor time of this thread where Linux tells them, so that a busy machine disturbs less; else of the clock.
fn seconds(origin: Instant) -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    match spent.and_then(|text| text.split(' ').next()?.parse::<f64>().ok()) {
        Some(nanoseconds) => nanoseconds / 1e9,
        None => origin.elapsed().as_secs_f64(),
    }
}

/// The least seconds of a run: rounds of as many runs as take a quarter of a second, the kernel's clock being coarse.
fn best_of<T>(rounds: usize, run: impl Fn() -> T) -> (T, f64) {
    let origin = Instant::now();
    let mut result = run();
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let (begin, mut n_runs) = (seconds(origin), 0);
        while seconds(origin) - begin < 0.25 {
            result = run();
            n_runs += 1;
        }
        best = best.min((seconds(origin) - begin) / n_runs as f64);
    }
    (result, best)
}
