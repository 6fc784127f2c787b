"""Fixtures that several test files share."""

import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pylm.dataset_info import DatasetInfo, SplitInfo, TokenFile

# Before torch is imported, here and in the commands that tests start: models this small gain nothing from a second
# thread, and on a busy machine its threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MakeDataset = Callable[..., Path]


@pytest.fixture
def make_dataset() -> MakeDataset:
    """Writes a dataset of the given documents and returns its folder: see write_dataset."""
    return write_dataset


def write_dataset(
    folder: Path,
    train: Sequence[Sequence[int]],
    val: Sequence[Sequence[int]] | None = None,
    *,
    vocab_size: int = 256,
    end_of_text_id: int | None = None,
    tokenizer_json: bytes = b"{}",
    bytes_per_token: float = 1.0,
    n_shards: int = 1,
) -> Path:
    """Write documents as they are given (end-of-text ids included) in the layout of `pylm tokenize`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(tokenizer_json)
    dtype = np.dtype("<u2" if vocab_size <= 65536 else "<u4")
    splits = {}
    for name, documents in {"train": train, "val": val}.items():
        if documents is None:
            continue
        ids = np.concatenate([np.empty(0, dtype), *(np.asarray(document, dtype) for document in documents)])
        offsets = np.cumsum([0, *(len(document) for document in documents)], dtype=np.uint64)
        np.save(folder / f"{name}.idx.npy", offsets)
        files = []
        for number, part in enumerate(np.array_split(ids, n_shards)):
            file = folder / (f"{name}.bin" if n_shards == 1 else f"{name}-{number:05}.bin")
            part.tofile(file)
            files.append(TokenFile(file.name, len(part), hashlib.sha256(part.tobytes()).hexdigest()))
        splits[name] = SplitInfo(tuple(files), len(ids), len(documents), int(len(ids) * bytes_per_token))
    DatasetInfo(
        pylm_version="0.1.0",
        dtype=f"uint{8 * dtype.itemsize}",
        vocab_size=vocab_size,
        tokenizer_sha256=hashlib.sha256(tokenizer_json).hexdigest(),
        end_of_text_id=end_of_text_id,
        special_ids={} if end_of_text_id is None else {"<|endoftext|>": end_of_text_id},
        split={"method": "hash", "fraction": 0.01, "seed": 0},
        sources=(),
        splits=splits,
        settings={},
    ).write(folder)
    return folder


@pytest.fixture
def future_leak() -> Callable[[Any], float]:
    """Measures how far a model's logits up to position t move, at most over t, when every later token changes."""
    return _future_leak


def _future_leak(model: Any) -> float:
    import torch

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.vocab_size, (2, model.config.max_context), generator=generator)
    changed = (tokens + 1) % model.config.vocab_size
    model.eval()
    with torch.no_grad():
        before = model(tokens)
        leaks = [
            (model(torch.cat((tokens[:, :t], changed[:, t:]), dim=1))[:, :t] - before[:, :t])
            .abs()
            .max()
            .item()
            for t in range(1, tokens.shape[1])
        ]
    return max(leaks)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine two threads that wait for each other make steps of toy size 20 times slower."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def real_text() -> bytes:
    """About 1 MB of real text that every machine has: sources of Python's standard library, joined."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    content = b""
    for path in sorted(stdlib.glob("*.py")):
        content += path.read_bytes()
        if len(content) > 1_000_000:
            break
    return content
