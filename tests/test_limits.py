"""Sizes beyond the limits end in one clear error that says where, before memory runs out."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pylm.dataset import Dataset
from pylm.errors import DataError
from pylm.tokenize import Settings, tokenize
from pylm.tokenizer import Tokenizer

MAX_PRETOKEN_BYTES = 64 << 20
GIGABYTE = 1 << 30

# Two pre-tokens of every pattern, the second too long for any.
START = b"ok "
LONG = START + b"\n" + b"a" * (MAX_PRETOKEN_BYTES + 1)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sparse(name: str, size_bytes: int) -> Path:
    with Path(name).open("wb") as file:
        file.truncate(size_bytes)
    return Path(name)


def chunks() -> Iterator[bytes]:
    yield from (LONG[start : start + (1 << 20)] for start in range(0, len(LONG), 1 << 20))


TRAINED = Tokenizer.train(["a a ab"], vocab_size=258)


@pytest.mark.parametrize(
    "take",
    [
        lambda: TRAINED.encode(LONG),
        lambda: TRAINED.encode_batch([b"short", LONG]),
        lambda: list(TRAINED.encode_iterable(chunks())),
        lambda: Tokenizer.train([LONG], vocab_size=300),
    ],
    ids=["encode", "encode_batch", "encode_iterable", "train"],
)
def test_a_pretoken_above_64_mib_is_an_error_with_its_position(take: Callable[[], object]) -> None:
    with pytest.raises(DataError, match=r"more than 67108864 bytes begins at byte 4:") as caught:
        take()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tokenizer", ["bpe", "given.json"])
def test_a_file_with_a_pretoken_above_64_mib_is_named_with_its_position(tokenizer: str) -> None:
    TRAINED.save("given.json")
    Path("long.txt").write_bytes(LONG)
    with pytest.raises(DataError, match=r"long\.txt.*more than 67108864 bytes begins at byte 4:"):
        tokenize(["long.txt"], Settings(tokenizer, val_fraction=0), out=Path("out"))
    assert not Path("out").exists()


def test_a_line_of_json_of_a_gigabyte_is_named() -> None:
    with Path("lines.jsonl").open("wb") as file:
        file.write(b'{"text": "one"}\n{"text": "')
        file.truncate(GIGABYTE)
    with pytest.raises(
        DataError, match=r"lines\.jsonl: line 2: expected at most 512 MiB, found a longer line"
    ):
        tokenize(["lines.jsonl"], Settings("byte"), out=Path("out"))


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "x.tiktoken", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe"]
)
def test_a_vocabulary_file_of_a_gigabyte_is_refused_unread(name: str) -> None:
    vocabulary = {"merges.txt": "vocab.json", "vocab.bpe": "encoder.json"}.get(name, name)
    Path(vocabulary).write_text("{}")
    sparse(name, GIGABYTE)
    with pytest.raises(DataError, match=rf"{name}: .*1073741824 bytes are too many"):
        Tokenizer.load(vocabulary)


def test_a_vocabulary_without_end_is_refused() -> None:
    Path("tokenizer.json").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"tokenizer\.json: .*too many"):
        Tokenizer.load("tokenizer.json")


@pytest.mark.parametrize("count", [2**62, 2**40])
def test_a_count_that_no_file_can_hold_is_refused(count: int) -> None:
    Path("a.txt").write_text("text " * 10)
    dataset = tokenize(["a.txt"], Settings("byte", val_fraction=0), out=Path("data")).dataset
    path = dataset / "train.idx.npy"
    with path.open("wb") as file:
        header = {"descr": "<u8", "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\0" * 16)
    with pytest.raises(DataError, match=r"train\.idx\.npy: expected an array of document offsets"):
        Dataset.open(dataset)
