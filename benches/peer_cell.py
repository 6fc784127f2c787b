"""One tokenizer does one job once in this process: `python benches/peer_cell.py JSON` prints a JSON line.

benches/tokenizer.py starts it with the interpreter that has the peer. A job names `peer`, `task` (train or encode),
`corpus`, `threads`, and `vocab_size` and `ties`, or `tokenizer` (a folder with tokenizer.json), `passes` and `out`.
Seconds are those of the work alone, imports and loading left out; peers get their text in memory, pieces of 1 MB cut
between a letter and a blank, where they take no path. Ours always reads a file, and writes what it makes.
"""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PIECE_BYTES = 1 << 20
Job = dict[str, Any]
Found = tuple[list[float], list[bytes], int]  # seconds of each pass; what to digest; how many merges or ids


def main() -> None:
    """Do the job and print what it took and a digest of what came out."""
    job = json.loads(sys.argv[1])
    os.environ["RAYON_NUM_THREADS"] = str(job["threads"])
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if job["threads"] > 1 else "false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    seconds, parts, n = JOBS[job["task"], job["peer"]](job)
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    print(json.dumps({"seconds": seconds, "digest": digest, "n": n, "peak_mb": _peak_mb - _base_mb}))


def train_pylm(job: Job) -> Found:
    """The whole job: file to tokenizer.json."""
    from pylm.tokenize import Settings, train_vocabulary

    settings = Settings(vocab_size=job["vocab_size"], ties=job["ties"], special=())
    _note_base()
    tokenizer, report = train_vocabulary(
        [job["corpus"]], settings, out=Path(job["out"], "tokenizer.json"), jobs=job["threads"]
    )
    _note_peak()
    return (
        [_stages(report, "reading", "counting", "merging")],
        _merged(tokenizer.merges),
        len(tokenizer.merges),
    )


def train_huggingface(job: Job) -> Found:
    """`train_from_iterator` with every pair allowed, bytes as the alphabet."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=job["vocab_size"],
        min_frequency=0,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = _pieces(job)
    took = _timed(lambda: tokenizer.train_from_iterator(texts, trainer))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [took], _merged((_bytes(left), _bytes(right)) for left, right in merges), len(merges)


def train_gigatoken(job: Job) -> Found:
    """`train_bpe` of a path."""
    import gigatoken

    merges: list[tuple[bytes, bytes]] = []
    _note_base()
    with _silent():
        took = _timed(lambda: merges.extend(gigatoken.train_bpe(job["corpus"], job["vocab_size"], [])[1]))
    return [took], _merged(merges), len(merges)


def train_rustbpe(job: Job) -> Found:
    """`train_from_iterator`; it numbers tokens as they are merged."""
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    texts = _pieces(job)
    took = _timed(lambda: tokenizer.train_from_iterator(iter(texts), job["vocab_size"], pattern=GPT2))
    tokens = [bytes(token) for token, _ in sorted(tokenizer.get_mergeable_ranks(), key=lambda pair: pair[1])]
    return [took], tokens[256:], len(tokens) - 256


def train_ffbpe(job: Job) -> Found:
    """`train_bpe` of texts in memory."""
    import ffbpe

    texts = _pieces(job)
    models: list[Any] = []
    took = _timed(lambda: models.append(ffbpe.train_bpe(iter(texts), vocab_size=job["vocab_size"])))
    tokens = [token for token, _ in sorted(dict(models[0].vocab).items(), key=lambda pair: pair[1])]
    return [took], tokens[256:], len(tokens) - 256


def encode_pylm(job: Job) -> Found:
    """A file to a file: text read, ids written, the inputs' checksum and the index of documents made.

    Later passes take the tokenizer of the first one's dataset, with the words that it kept.
    """
    from pylm.tokenize import Settings, tokenize

    tokenizer, made = Path(job["tokenizer"], "tokenizer.json"), Path(job["out"], "dataset")
    _note_base()
    seconds = []
    for _ in range(job["passes"]):
        settings = Settings(tokenizer=str(tokenizer), val_fraction=0.0)
        outcome = tokenize([job["corpus"]], settings, out=made, jobs=job["threads"], force=True)
        tokenizer = made
        assert outcome.report is not None
        seconds.append(_stages(outcome.report, "reading", "encoding"))
    _note_peak()
    ids = _ids_of_dataset(Path(job["out"], "dataset"))
    return seconds, [ids.tobytes()], len(ids)


def encode_pylm_to_memory(job: Job) -> Found:
    """`encode_batch` of pieces, as the peers do it: no checksum, no file. Reading the text counts, as for gigatoken."""
    import numpy as np

    from pylm.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(job["tokenizer"])
    _note_base()
    found: list[Any] = []

    def encode() -> None:
        pieces = list(_cut(Path(job["corpus"]).read_bytes()))
        found[:] = tokenizer.encode_batch(pieces, threads=job["threads"])

    seconds = [_timed(encode) for _ in range(job["passes"])]
    ids = np.concatenate(found).astype(np.uint32)
    return seconds, [ids.tobytes()], len(ids)


def encode_huggingface(job: Job) -> Found:
    """`encode_batch` of pieces; 1.0 gives its ids as arrays."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_with_named_split(Path(job["tokenizer"]), Path(job["out"]))))
    texts = _pieces(job)
    found: list[Any] = []

    def encode() -> None:
        found[:] = [
            getattr(encoding, "ids_array", None) if hasattr(encoding, "ids_array") else encoding.ids
            for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)
        ]

    seconds = [_timed(encode) for _ in range(job["passes"])]
    ids = np.concatenate([np.asarray(part, dtype=np.uint32) for part in found])
    return seconds, [ids.tobytes()], len(ids)


def encode_gigatoken(job: Job) -> Found:
    """`encode_files` of a path, into memory."""
    import awkward  # noqa: F401  # else the first pass pays for its import
    import gigatoken
    import numpy as np

    tokenizer = gigatoken.Tokenizer(str(Path(job["tokenizer"], "tokenizer.json")))
    _note_base()
    found: list[Any] = []

    def encode() -> None:
        found[:] = [tokenizer.encode_files(gigatoken.TextFileSource([job["corpus"]]))]

    with _silent():
        seconds = [_timed(encode) for _ in range(job["passes"])]
    layout = found[0].layout
    data = np.asarray(layout.content.data)[int(layout.offsets[0]) : int(layout.offsets[-1])]
    ids = data.astype(np.uint32)
    return seconds, [ids.tobytes()], len(ids)


JOBS: dict[tuple[str, str], Callable[[Job], Found]] = {
    ("train", "pylm"): train_pylm,
    ("train", "tokenizers"): train_huggingface,
    ("train", "gigatoken"): train_gigatoken,
    ("train", "rustbpe"): train_rustbpe,
    ("train", "ffbpe"): train_ffbpe,
    ("encode", "pylm"): encode_pylm,
    ("encode to memory", "pylm"): encode_pylm_to_memory,
    ("encode", "tokenizers"): encode_huggingface,
    ("encode", "gigatoken"): encode_gigatoken,
}

_base_mb = _peak_mb = 0.0


def _high_water_mb() -> float:
    """The most memory this program has held (what getrusage says begins with its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def _note_base() -> None:
    """Memory held before there is any text."""
    global _base_mb
    _base_mb = _high_water_mb()


def _note_peak() -> None:
    """The most that was held, before results are read back and digested."""
    global _peak_mb
    _peak_mb = _high_water_mb()


def _pieces(job: Job) -> list[str]:
    _note_base()  # text in memory counts: ours and gigatoken's do without
    return [piece.decode() for piece in _cut(Path(job["corpus"]).read_bytes())]


def _cut(text: bytes) -> Iterator[bytes]:
    """Pieces of about PIECE_BYTES, between two words."""
    start, between = 0, re.compile(rb"[a-z] (?=[a-z])")
    while len(text) - start > PIECE_BYTES and (found := between.search(text, start + PIECE_BYTES)):
        yield text[start : found.start() + 1]
        start = found.start() + 1
    yield text[start:]


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    took = time.perf_counter() - started
    _note_peak()
    return took


def _with_named_split(folder: Path, work: Path) -> Path:
    """The vocabulary with the split by the peer's own scanner where that is the same: 1.0 refuses the expression."""
    content = json.loads((folder / "tokenizer.json").read_text())
    if folder.name in ("gpt2", "own"):
        content["pre_tokenizer"] = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        }
    path = work / "tokenizer.json"
    path.write_text(json.dumps(content))
    return path


def _stages(report: dict[str, Any], *names: str) -> float:
    """Seconds of a job's stages, those that peers do as well: loading a vocabulary is not among them."""
    return sum(float(report["seconds"][name]) for name in names)


def _merged(merges: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The tokens that merges make, in order: what all trainers can be compared by."""
    return [left + right for left, right in merges]


def _bytes(characters: str) -> bytes:
    """The bytes behind ByteLevel's characters."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(moved)}
    return bytes(byte_of[character] for character in characters)


def _ids_of_dataset(folder: Path) -> Any:
    """The ids of a dataset but the end of text that stands behind the last document: the file has none there."""
    import numpy as np

    info = json.loads((folder / "dataset.json").read_text())
    files = sorted(folder.glob("train*.bin"))
    ids = np.concatenate([np.fromfile(file, info["dtype"]) for file in files]).astype(np.uint32)
    return ids[:-1] if len(ids) and ids[-1] == info["end_of_text_id"] else ids


class _silent:  # noqa: N801  # used as a word
    """Sends what a library prints from below Python nowhere."""

    def __enter__(self) -> None:
        self._kept = os.dup(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def __exit__(self, *exception: object) -> None:
        os.dup2(self._kept, 1)


if __name__ == "__main__":
    main()
