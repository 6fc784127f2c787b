"""The table of docs/performance.md: pylm's tokenizer beside its peers, in one run (`make bench-tokenizer`).

Every job is a process of its own (benches/peer_cell.py), peers and pylm take turns, the median of `--runs` counts.
Where outputs should be equal their digests are compared, and a line says so when they are not. English and
multilingual text are those of ../shared/data (or $PYLM_SHARED), code is the Python that is installed here.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from corpora import BUILD, corpus_file, shared

from pylm import _bpe

ROOT = Path(__file__).parents[1]
TRAINERS = {"tokenizers": "huggingface", "gigatoken": "huggingface", "rustbpe": "ids", "ffbpe": "ids"}
Result = dict[str, Any]

# work, corpus, ids, threads, needed and wanted ratio to the fastest peer; slow peers are left out of large jobs
TRAINING = [
    ("english", 32_000, 1, 4.0, 8.0),
    ("english", 32_000, 2, 6.5, 10.0),
    ("english", 10_000, 1, 3.2, 6.0),
    ("english", 10_000, 2, 5.0, 8.0),
    ("code", 32_000, 1, 3.5, 8.0),
    ("code", 32_000, 2, 6.0, 8.0),
    ("multilingual", 32_000, 1, 5.0, 8.0),
    ("multilingual", 32_000, 2, 5.0, 8.0),
    ("english", 128_000, 2, 8.0, 15.0),
]
# vocabulary, corpus, needed ratio cold and warm
ENCODING = [
    ("own", "english", 1.3, 1.6),
    ("gpt2", "english", 1.3, 1.6),
    ("o200k", "english", 1.3, 1.6),
    ("cl100k", "english", 1.3, 1.6),
    ("gpt2", "multilingual", 1.2, 1.6),
]


def main() -> None:
    """Make the corpora and vocabularies, then print a line a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peers", type=Path, help="an interpreter with gigatoken, rustbpe, ffbpe, tokenizers"
    )
    parser.add_argument("--next", type=Path, help="an interpreter with the pre-release of tokenizers 1.0")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=["training", "encoding", "growth", "all"], default="all")
    options = parser.parse_args()
    if _bpe.__build_profile__ != "release":
        sys.exit(f"error: pylm._bpe is a {_bpe.__build_profile__} build: expected a release build")
    BUILD.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.peers, options.next, options.runs)
    if options.only in ("training", "all"):
        bench.training()
    if options.only in ("encoding", "all"):
        bench.encoding()
    if options.only in ("growth", "all"):
        bench.growth()


class Bench:
    """Interpreters, corpora and what was measured so far."""

    def __init__(self, peers: Path | None, following: Path | None, runs: int) -> None:
        self.runs = runs
        self.interpreters = {"pylm": Path(sys.executable)}
        for name in ("gigatoken", "rustbpe", "ffbpe", "tokenizers"):
            if peers and _has(peers, name):
                self.interpreters[name] = peers
            else:
                print(f"{name}: absent (--peers PYTHON names an interpreter that has it)")
        if following and _has(following, "tokenizers"):
            self.interpreters["tokenizers 1.0"] = following
        else:
            print("tokenizers 1.0: absent (--next PYTHON names an interpreter that has it)")

    def training(self) -> None:
        """Training against the fastest peer: the ties are the peers', and the merges must be equal."""
        print(f"\n{'training':34}{'pylm':>8}{'peers':>44}{'ratio':>8}{'needed':>8}")
        for corpus, vocab_size, threads, needed, _wanted in TRAINING:
            path = corpus_file(corpus)
            if path is None:
                continue
            peers = [name for name in TRAINERS if name in self.interpreters]
            if (corpus, vocab_size, threads) != ("english", 32_000, 2):
                peers = [
                    name for name in peers if name != "tokenizers"
                ]  # the slowest everywhere: once is enough
            if vocab_size > 32_000:
                peers = [name for name in peers if name != "gigatoken"]  # over a minute
            if corpus == "multilingual":
                peers = [name for name in peers if name != "rustbpe"]  # half a minute
            job = {"task": "train", "corpus": str(path), "vocab_size": vocab_size, "threads": threads}
            found = self._in_turns([("pylm", {"ties": "huggingface"}), *((name, {}) for name in peers)], job)
            by_ids = self._in_turns([("pylm", {"ties": "ids"})], job)["pylm"]
            self._check(found, by_ids)
            label = f"{corpus}, {vocab_size:,} ids, {threads} thread{'s'[: threads > 1]}"
            self._print_row(label, found, 0, needed)
            memory = {name: f"{result['peak_mb']:.0f}" for name, result in found.items()}
            print(f"{'':4}peak MB above the imports: {memory}; ties by ids {by_ids['median'][0]:.3f} s")

    def encoding(self) -> None:
        """A file to a file against the fastest peer to memory, first pass and best of the later ones."""
        for threads in (1, 2):
            print(f"\n{f'encoding, {threads} threads':34}{'pylm':>8}{'peers':>44}{'ratio':>8}{'needed':>8}")
            for vocabulary, corpus, cold, warm in ENCODING:
                path, tokenizer = corpus_file(corpus), vocabulary_folder(vocabulary)
                if path is None or tokenizer is None:
                    continue
                peers = [name for name in ("gigatoken", "tokenizers 1.0") if name in self.interpreters]
                job = {
                    "task": "encode",
                    "corpus": str(path),
                    "tokenizer": str(tokenizer),
                    "threads": threads,
                    "passes": 4,
                }
                found = self._in_turns([("pylm", {}), *((name, {}) for name in peers)], job)
                self._check(found)
                self._print_row(f"{corpus}, {vocabulary}, cold", found, 0, cold)
                self._print_row(f"{corpus}, {vocabulary}, warm", found, 1, warm)
                ours = self._in_turns([("pylm", {"task": "encode to memory"})], job)
                self._check(found | {"pylm to memory": ours["pylm"]})
                like = found | ours
                self._print_row(f"{corpus}, {vocabulary}, to memory, cold", like, 0, cold)
                self._print_row(f"{corpus}, {vocabulary}, to memory, warm", like, 1, warm)
        self._small_file()

    def growth(self) -> None:
        """Training of ours alone from 5 MB to 1 GB (the corpus again and again with other words) and to 128k ids."""
        english = corpus_file("english")
        if english is None:
            return
        print("\ngrowth: two threads, seconds (MB/s)")
        text = english.read_bytes()
        for size in (5_000_000, 20_000_000, 74_000_000, 300_000_000, 1_000_000_000):
            path = BUILD / "growth.txt"
            with path.open("wb") as file:
                for copy in range(-(-size // len(text))):
                    part = text[: size - copy * len(text)]
                    # Later copies change a letter in every word that has it, so that words keep coming.
                    file.write(part if copy == 0 else part.replace(b"a", bytes([97 + copy])))
            for vocab_size in (10_000, 32_000, 128_000):
                job = {"task": "train", "corpus": str(path), "vocab_size": vocab_size, "threads": 2}
                found = self._in_turns([("pylm", {"ties": "bytes"})], job)["pylm"]
                took = found["median"][0]
                print(
                    f"  {size / 1e6:6,.0f} MB {vocab_size:8,} ids {took:8.3f} s {size / 1e6 / took:8.0f} MB/s"
                )
            path.unlink()

    def _small_file(self) -> None:
        english, tokenizer = corpus_file("english"), vocabulary_folder("gpt2")
        if english is None or tokenizer is None:
            return
        small = BUILD / "small.txt"
        small.write_bytes(english.read_bytes()[:5_000_000])
        job = {"task": "encode", "corpus": str(small), "tokenizer": str(tokenizer), "threads": 2, "passes": 1}
        peers = [name for name in ("gigatoken", "tokenizers 1.0") if name in self.interpreters]
        found = self._in_turns([("pylm", {}), *((name, {}) for name in peers)], job)
        for result in found.values():
            result["median"] = [result["process"]]
        self._print_row("5 MB, gpt2, process and all", found, 0, 1.5)

    def _in_turns(self, jobs: list[tuple[str, dict[str, Any]]], job: dict[str, Any]) -> dict[str, Result]:
        """Each job `runs` times, one after another; medians of the first pass, of the best later one and of memory."""
        collected: dict[str, list[Result]] = {name: [] for name, _ in jobs}
        for _ in range(self.runs):
            for name, more in jobs:
                with tempfile.TemporaryDirectory(dir=BUILD) as out:
                    result = self._cell(name, job | more | {"out": out})
                collected[name] += [result] if result else []
        return {name: _median(results) for name, results in collected.items() if results}

    def _cell(self, name: str, job: dict[str, Any]) -> Result | None:
        peer = name.split()[0]
        command = [str(self.interpreters[name]), str(ROOT / "benches" / "peer_cell.py")]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, json.dumps(job | {"peer": peer})],
            capture_output=True,
            text=True,
            env=os.environ | ({"PYTHONPATH": str(ROOT)} if name == "pylm" else {}),
            check=False,
        )
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1]
            if name == "pylm":
                sys.exit(f"error: {name}: {reason}")
            print(f"{'':4}{name}: failed ({reason.strip()})")
            return None
        result: Result = json.loads(done.stdout.splitlines()[-1])
        return result | {"process": time.perf_counter() - began}

    @staticmethod
    def _check(found: dict[str, Result], by_ids: Result | None = None) -> None:
        """Say which outputs differ from ours under the same rule."""
        for name, result in found.items():
            same = by_ids if by_ids is not None and TRAINERS.get(name) == "ids" else found["pylm"]
            if result["digest"] != same["digest"]:
                print(f"{'':4}{name}: another result ({result['n']:,} against {same['n']:,})")

    @staticmethod
    def _print_row(label: str, found: dict[str, Result], which: int, needed: float) -> None:
        times = {name: result["median"][which] for name, result in found.items()}
        ours = times.pop("pylm")
        peers = ", ".join(f"{name} {took:.3f}" for name, took in times.items())
        ratio = f"{min(times.values()) / ours:.2f}" if times else "-"
        print(f"{label:34}{ours:8.3f}{peers:>44}{ratio:>8}{needed:8.1f}", flush=True)


def vocabulary_folder(name: str) -> Path | None:
    """A folder with the vocabulary as tokenizer.json: pylm's own 32,000 ids of English, or a published one."""
    from pylm.tokenize import Settings, train_vocabulary
    from pylm.tokenizer import Tokenizer

    folder = BUILD / name
    if (folder / "tokenizer.json").exists():
        return folder
    folder.mkdir(exist_ok=True)
    out = folder / "tokenizer.json"
    if name == "own":
        english = corpus_file("english")
        if english is None:
            return None
        train_vocabulary([str(english)], Settings(vocab_size=32_000), out=out)
        return folder
    vocab = shared() / "data" / "vocab"
    if not vocab.is_dir():
        print(f"{name}: skipped, {vocab} is absent")
        return None
    if name == "gpt2":
        tokenizer = Tokenizer.from_gpt2(vocab / "gpt2_encoder.json", vocab / "gpt2_vocab.bpe")
    else:
        tokenizer = Tokenizer.from_tiktoken(vocab / f"{name}_base.tiktoken")
    tokenizer.save(out)
    return folder


def _has(interpreter: Path, package: str) -> bool:
    done = subprocess.run([str(interpreter), "-c", f"import {package}"], capture_output=True, check=False)
    return done.returncode == 0


def _median(results: Iterable[Result]) -> Result:
    listed = list(results)
    first = statistics.median(result["seconds"][0] for result in listed)
    later = statistics.median(min(result["seconds"][1:] or result["seconds"]) for result in listed)
    digests = {result["digest"] for result in listed}
    return {
        "median": [first, later],
        "digest": digests.pop() if len(digests) == 1 else "differs from run to run",
        "n": listed[0]["n"],
        "peak_mb": statistics.median(result["peak_mb"] for result in listed),
        "process": statistics.median(result["process"] for result in listed),
    }


if __name__ == "__main__":
    main()
