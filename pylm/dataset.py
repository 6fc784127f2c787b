"""A dataset folder: token files, document offsets, tokenizer; checked when opened, mapped when read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pylm.dataset_info import DatasetInfo, SplitInfo, file_sha256
from pylm.errors import DataError

Ids = npt.NDArray[np.unsignedinteger]


class ShardedTokens:
    """Several token files read like one array: `len`, slices, integer arrays of any shape, copied out."""

    def __init__(self, shards: list[Ids]) -> None:
        self.shards = shards
        self.dtype = shards[0].dtype
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int | slice | npt.NDArray[np.integer]) -> Any:
        positions = np.arange(len(self))[index] if isinstance(index, int) else index
        if isinstance(positions, slice):
            start, stop, step = positions.indices(len(self))
            return (
                self._slice(start, max(start, stop))[::step]
                if step > 0
                else self[np.arange(start, stop, step)]
            )
        flat = np.asarray(positions).ravel()
        owners = np.searchsorted(self._starts, flat, side="right") - 1
        ids = np.empty(flat.shape, self.dtype)
        for shard in np.unique(owners):
            mine = owners == shard
            ids[mine] = self.shards[shard][flat[mine] - self._starts[shard]]
        return ids.reshape(np.shape(positions))[()]

    def _slice(self, start: int, stop: int) -> Ids:
        parts = [
            shard[max(0, start - first) : max(0, stop - first)]
            for shard, first in zip(self.shards, self._starts.tolist(), strict=False)
        ]
        return np.concatenate(parts)


@dataclass(frozen=True)
class Split:
    """One split, mapped.

    `tokens` (n_tokens,) uint16 or uint32; `offsets` (n_documents + 1,) uint64, in tokens.
    """

    name: str
    tokens: Ids | ShardedTokens
    offsets: npt.NDArray[np.uint64]
    n_tokens: int
    n_documents: int
    text_bytes: int


@dataclass(frozen=True)
class Dataset:
    """An opened dataset: what dataset.json says, and the mapped splits. `val` is None when none was made."""

    path: Path
    info: DatasetInfo
    train: Split
    val: Split | None

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a folder and check what can be checked without reading the tokens.

        Raises DataError when it is missing, written by a newer pylm, or damaged: a file is gone or not as
        long as dataset.json says, or the tokenizer is another one.
        """
        folder = Path(path)
        info = DatasetInfo.read(folder)
        tokenizer = folder / "tokenizer.json"
        if not tokenizer.is_file():
            raise _damaged(folder, "tokenizer.json is missing")
        if (found := file_sha256(tokenizer)) != info.tokenizer_sha256:
            raise DataError(
                f"{tokenizer}: not the tokenizer of this dataset: "
                f"expected sha256 {info.tokenizer_sha256[:12]}, found {found[:12]}; "
                "make the dataset again with `pylm tokenize --force`"
            )
        splits = {name: _map_split(folder, name, split, info.dtype) for name, split in info.splits.items()}
        return cls(folder, info, splits["train"], splits.get("val"))

    @property
    def name(self) -> str:
        """The folder's name, as `pylm train` names runs after it."""
        return self.path.resolve().name

    @property
    def vocab_size(self) -> int:
        """The largest id of the vocabulary + 1."""
        return self.info.vocab_size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the ids on disk, little-endian."""
        return np.dtype(self.info.dtype).newbyteorder("<")

    @property
    def end_of_text_id(self) -> int | None:
        """The id that ends each document, None when documents follow each other bare."""
        return self.info.end_of_text_id

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Special tokens and their ids."""
        return self.info.special_ids

    @property
    def tokenizer_sha256(self) -> str:
        """The sha256 of tokenizer.json."""
        return self.info.tokenizer_sha256

    @property
    def sha256(self) -> str:
        """The identity of the dataset's tokens."""
        return self.info.sha256

    def verify(self) -> None:
        """Read every token file and compare its checksum. Raises DataError naming the first that differs."""
        for split in self.info.splits.values():
            for file in split.files:
                if (found := file_sha256(self.path / file.name)) != file.sha256:
                    raise _damaged(self.path, f"{file.name}: expected sha256 {file.sha256}, found {found}")


def _map_split(folder: Path, name: str, info: SplitInfo, dtype_name: str) -> Split:
    dtype = np.dtype(dtype_name).newbyteorder("<")
    shards: list[Ids] = []
    for file in info.files:
        path = folder / file.name
        expected = file.n_tokens * dtype.itemsize
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            is_there = "it is missing" if found is None else f"found {found:,}"
            raise _damaged(
                folder,
                f"{file.name}: expected {file.n_tokens:,} {dtype_name} ids ({expected:,} bytes), {is_there}",
            )
        shards.append(np.memmap(path, dtype, "r") if expected else np.empty(0, dtype))
    offsets = _map_offsets(folder, f"{name}.idx.npy", info)
    tokens = shards[0] if len(shards) == 1 else ShardedTokens(shards)
    return Split(name, tokens, offsets, info.n_tokens, info.n_documents, info.text_bytes)


def _map_offsets(folder: Path, name: str, info: SplitInfo) -> npt.NDArray[np.uint64]:
    try:
        with np.errstate(over="ignore"):  # a length that no file can have: refused by what maps it
            offsets = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder, f"{name}: expected an array of document offsets, found {error}") from None
    if offsets.dtype != np.uint64 or offsets.shape != (info.n_documents + 1,):
        raise _damaged(
            folder,
            f"{name}: expected {info.n_documents + 1:,} uint64 offsets, "
            f"found {offsets.dtype} {offsets.shape}",
        )
    if offsets[0] != 0 or offsets[-1] != info.n_tokens:
        raise _damaged(
            folder,
            f"{name}: expected offsets from 0 to {info.n_tokens:,}, found {offsets[0]} to {offsets[-1]:,}",
        )
    return offsets  # type: ignore[no-any-return]


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(f"{folder}: damaged dataset: {what}; make it again with `pylm tokenize --force`")
