"""`pylm tokenize` end to end against `tokenizers` training alone, in one run: `python benches/tokenize_text.py [TEXT]`.

Without TEXT it joins the English of ../shared/data (or $PYLM_SHARED) once, into build/. Ours is a process: start-up,
counting, merging, encoding and writing to disk, 32,000 ids; theirs is `train` of the same vocabulary alone, its import
and everything else left out. Each runs `--repeat` times, alternately, and the best counts: noise only ever adds time.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from corpora import corpus_file

from pylm import _bpe

ROOT = Path(__file__).parents[1]
END = "<|endoftext|>"
THEIRS = """
import json, sys, time
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
path, vocab_size, pattern = sys.argv[1], int(sys.argv[2]), sys.argv[3]
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(pattern), "isolated"),
     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
)
trainer = trainers.BpeTrainer(
    vocab_size=vocab_size, special_tokens=["<|endoftext|>"], show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
)
started = time.perf_counter()
tokenizer.train([path], trainer)
print(json.dumps({"seconds": time.perf_counter() - started, "vocab_size": tokenizer.get_vocab_size()}))
"""


def main() -> None:
    """Print one line a run and the ratio of the best ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", type=Path)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    if _bpe.__build_profile__ != "release":
        sys.exit(
            f"pylm._bpe is a {_bpe.__build_profile__} build: time a release one (maturin develop --release)"
        )
    text = options.text or _english()
    ours, theirs = [], []
    for _ in range(options.repeat):
        ours.append(_ours(text, options.vocab_size, options.threads))
        theirs.append(_theirs(text, options.vocab_size, options.threads))
    size_mb = text.stat().st_size / 1e6
    print(f"{text}: {size_mb:.1f} MB, {options.vocab_size:,} ids, {options.threads} threads")
    print(f"pylm tokenize, end to end     {min(ours):8.2f} s   {size_mb / min(ours):8.1f} MB/s")
    if None in theirs:
        print("tokenizers, training alone    skipped: tokenizers absent")
        return
    best = min(seconds for seconds in theirs if seconds is not None)
    print(f"tokenizers, training alone    {best:8.2f} s   {size_mb / best:8.1f} MB/s")
    print(f"share of their training time  {min(ours) / best:8.3f}")


def _ours(text: Path, vocab_size: int, threads: int) -> float:
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    try:
        arguments = [
            "tokenize",
            text,
            "--vocab-size",
            vocab_size,
            "--jobs",
            threads,
            "--out",
            folder / "data",
            "--json",
        ]
        started_s = time.perf_counter()
        command = [sys.executable, "-m", "pylm", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        elapsed_s = time.perf_counter() - started_s
    finally:
        shutil.rmtree(folder)
    report = json.loads(result.stdout)
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in report["seconds"].items())
    print(
        f"pylm: {elapsed_s:.2f} s ({stages}), peak memory {report['peak_memory_bytes'] / 1e6:.0f} MB",
        file=sys.stderr,
    )
    return elapsed_s


def _theirs(text: Path, vocab_size: int, threads: int) -> float | None:
    pattern = _bpe.pattern_regex("gpt2")
    assert pattern is not None
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", THEIRS, str(text), str(vocab_size), pattern]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        print(result.stderr.strip().splitlines()[-1], file=sys.stderr)
        return None
    report = json.loads(result.stdout)
    print(f"tokenizers: {report['seconds']:.2f} s, {report['vocab_size']:,} ids", file=sys.stderr)
    return float(report["seconds"])


def _english() -> Path:
    path = corpus_file("english")
    if path is None:
        sys.exit("skipped: name a text file instead")
    return path


if __name__ == "__main__":
    (ROOT / "build").mkdir(exist_ok=True)
    main()
