"""A dataset opens as it was written, and whatever is wrong with one is said in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pylm.batches import Windows
from pylm.dataset import Dataset
from pylm.dataset_info import DatasetInfo
from pylm.errors import DataError

DOCUMENTS = [[5, 6, 7, 0], [8, 0], [9, 10, 11, 12, 0]]


@pytest.fixture
def folder(tmp_path: Path, make_dataset: Any) -> Path:
    path: Path = make_dataset(tmp_path / "small", DOCUMENTS, [[1, 0]], end_of_text_id=0, bytes_per_token=3)
    return path


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_it_opens_as_it_was_written(folder: Path) -> None:
    dataset = Dataset.open(folder)
    assert (dataset.name, dataset.vocab_size, dataset.end_of_text_id) == ("small", 256, 0)
    assert dataset.dtype == np.uint16
    assert list(dataset.train.tokens[:]) == [5, 6, 7, 0, 8, 0, 9, 10, 11, 12, 0]
    assert list(dataset.train.offsets) == [0, 4, 6, 11]
    assert (dataset.train.n_documents, dataset.train.text_bytes) == (3, 33)
    assert dataset.val is not None
    assert dataset.val.n_tokens == 2
    dataset.verify()


def test_shards_read_like_one_array(tmp_path: Path, make_dataset: Any) -> None:
    ids = list(range(100))
    one = Dataset.open(make_dataset(tmp_path / "one", [ids])).train.tokens
    many = Dataset.open(make_dataset(tmp_path / "many", [ids], n_shards=7)).train.tokens
    assert len(many) == len(one) == 100
    windows = np.arange(0, 90, 9)[:, None] + np.arange(11)
    assert np.array_equal(many[windows], one[windows])
    for cut in (
        slice(None),
        slice(13, 16),
        slice(-5, None),
        slice(3, 90, 7),
        slice(80, 10, -3),
        slice(50, 20),
    ):
        assert np.array_equal(many[cut], one[cut])
    assert many[42] == one[42]


def test_what_stands_above_four_gibibytes_is_read_in_its_place(folder: Path) -> None:
    before = 2**33  # ids that are a hole on disk
    info = json.loads((folder / "dataset.json").read_text())
    train = info["splits"]["train"]
    n_tokens = before + train["n_tokens"]
    content = (folder / "train.bin").read_bytes()
    with (folder / "train.bin").open("wb") as file:
        file.seek(2 * before)
        file.write(content)
    train |= {"n_tokens": n_tokens, "files": [train["files"][0] | {"n_tokens": n_tokens}]}
    _edit(folder, splits=info["splits"])
    np.save(folder / "train.idx.npy", np.array([0, before + 4, before + 6, n_tokens], np.uint64))

    split = Dataset.open(folder).train
    start, end = split.offsets[1:3].tolist()
    assert list(split.tokens[start:end]) == [8, 0]
    windows = Windows(split.tokens, context=4, seed=0)
    starts = windows.starts(np.arange(100))
    assert (starts > 2**32).sum() > 30
    assert np.array_equal(windows.batch(0, 100), np.zeros((100, 5)))
    last = Windows(split.tokens, context=n_tokens - 8, seed=0)
    assert list(last.tokens[last.starts(np.array([1]))[0] :][-11:]) == [5, 6, 7, 0, 8, 0, 9, 10, 11, 12, 0]


def test_a_dataset_may_lack_validation_and_hold_wide_ids(tmp_path: Path, make_dataset: Any) -> None:
    dataset = Dataset.open(make_dataset(tmp_path / "wide", [[70_000, 3]], vocab_size=70_001))
    assert dataset.val is None
    assert dataset.dtype == np.uint32
    assert list(dataset.train.tokens[:]) == [70_000, 3]


def test_an_empty_split_opens(tmp_path: Path, make_dataset: Any) -> None:
    assert len(Dataset.open(make_dataset(tmp_path / "none", [[1]], [])).val.tokens) == 0  # type: ignore[union-attr]


def test_identity_is_of_the_tokens_and_not_of_the_place(tmp_path: Path, make_dataset: Any) -> None:
    one = Dataset.open(make_dataset(tmp_path / "one", DOCUMENTS))
    moved = Dataset.open(make_dataset(tmp_path / "two", DOCUMENTS))
    other = Dataset.open(make_dataset(tmp_path / "three", [*DOCUMENTS, [1]]))
    assert one.sha256 == moved.sha256 != other.sha256


def test_writing_what_was_read_changes_no_byte(folder: Path) -> None:
    before = (folder / "dataset.json").read_bytes()
    DatasetInfo.read(folder).write(folder)
    assert (folder / "dataset.json").read_bytes() == before


def _truncate(folder: Path) -> None:
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "dataset.json").unlink(), "expected a pylm-dataset file, found none"),
        (lambda f: (f / "dataset.json").write_text("{"), "damaged: expected JSON"),
        (lambda f: _edit(f, format="pylm-run"), "expected format 'pylm-dataset', found 'pylm-run'"),
        (lambda f: _edit(f, version=2), "written by a newer pylm"),
        (lambda f: _edit(f, dtype="int64"), "expected dtype uint16 or uint32, found 'int64'"),
        (lambda f: _edit(f, dtype="uint32"), r"train.bin: expected 11 uint32 ids \(44 bytes\), found 22"),
        (lambda f: _edit(f, vocab_size=70_000), "vocab_size 70000 does not fit dtype uint16"),
        (lambda f: _edit(f, vocab_size="many"), "vocab_size: expected int, found 'many'"),
        (lambda f: _edit(f, vocab_size=True), "vocab_size: expected int, found True"),
        (lambda f: _edit(f, end_of_text_id=300), "end_of_text_id 300 is outside"),
        (lambda f: _edit(f, splits={"train": 1}), r"splits.train: expected an object, found 1"),
        (lambda f: _edit(f, splits={}), "expected the splits train and val, found none"),
        (lambda f: _edit(f, sources=None), "sources: expected list, found None"),
        (_truncate, r"train.bin: expected 11 uint16 ids \(22 bytes\), found 20"),
        (lambda f: (f / "val.bin").unlink(), "val.bin: .* it is missing"),
        (lambda f: (f / "train.idx.npy").unlink(), "train.idx.npy: expected an array of document offsets"),
        (lambda f: (f / "train.idx.npy").write_bytes(b"\x93NUMPY"), "train.idx.npy: expected an array"),
        (lambda f: np.save(f / "train.idx.npy", np.zeros(4)), "expected 4 uint64 offsets, found float64"),
        (
            lambda f: np.save(f / "train.idx.npy", np.arange(4, dtype=np.uint64)),
            "expected offsets from 0 to 11",
        ),
        (lambda f: (f / "tokenizer.json").write_text("[]"), "not the tokenizer of this dataset"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    ],
)
def test_damage_is_one_clear_line(folder: Path, damage: Any, message: str) -> None:
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        Dataset.open(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="expected a dataset folder, found none; make one with `pylm tokenize`"
    ):
        Dataset.open(tmp_path / "nowhere")


def test_names_cannot_leave_the_folder(folder: Path) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    content["splits"]["train"]["files"][0]["name"] = "../../etc/passwd"
    _edit(folder, splits=content["splits"])
    with pytest.raises(DataError, match="expected a file of this folder"):
        Dataset.open(folder)


def test_verify_finds_a_changed_token(folder: Path) -> None:
    content = bytearray((folder / "train.bin").read_bytes())
    content[4] ^= 1
    (folder / "train.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"train.bin: expected sha256 [0-9a-f]{64}, found"):
        Dataset.open(folder).verify()
