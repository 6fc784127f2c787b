"""dataset.json: what a dataset says of itself, written once and checked field by field when it is read."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pylm.errors import DataError
from pylm.files import read_json, write_json

FORMAT = "pylm-dataset"
VERSION = 1
DATASET_JSON = "dataset.json"
DTYPE_BYTES = {"uint16": 2, "uint32": 4}
NPY_HEADER_BYTES = 128  # of our *.idx.npy: fixed, because how many documents there are is known at the end


@dataclass(frozen=True)
class TokenFile:
    """One array of ids on disk: raw, little-endian, no header."""

    name: str
    n_tokens: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """An input as it lay on disk; `split` is "val" for the text of --val, else None."""

    path: str
    size_bytes: int
    sha256: str
    split: str | None = None


@dataclass(frozen=True)
class SplitInfo:
    """What dataset.json says of one split; `text_bytes` counts the documents' bytes, ends of text none."""

    files: tuple[TokenFile, ...]
    n_tokens: int
    n_documents: int
    text_bytes: int


@dataclass(frozen=True)
class DatasetInfo:
    """The content of dataset.json.

    `vocab_size` is the vocabulary's largest id + 1; documents follow each other bare when
    `end_of_text_id` is None.
    """

    pylm_version: str
    dtype: str
    vocab_size: int
    tokenizer_sha256: str
    end_of_text_id: int | None
    special_ids: dict[str, int]
    split: dict[str, Any]
    sources: tuple[Source, ...]
    splits: dict[str, SplitInfo]
    settings: dict[str, Any]

    @property
    def sha256(self) -> str:
        """The identity of the tokens, wherever the folder and the sources lie."""
        content = asdict(self)
        named = {
            name: content[name]
            for name in ("dtype", "vocab_size", "tokenizer_sha256", "end_of_text_id", "splits")
        }
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write dataset.json, the last file of a folder: one without it is not a dataset."""
        content = asdict(self)
        for source in content["sources"]:
            if source["split"] is None:
                del source["split"]
        write_json(folder / DATASET_JSON, {"format": FORMAT, "version": VERSION, **content})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check dataset.json. Raises DataError when it is missing, damaged, newer or impossible."""
        path = folder / DATASET_JSON
        if not folder.is_dir():
            raise DataError(f"{folder}: expected a dataset folder, found none; make one with `pylm tokenize`")
        values = _Fields(path, read_json(path, FORMAT, VERSION))
        dtype = values.get("dtype", str)
        if dtype not in DTYPE_BYTES:
            raise DataError(f"{path}: expected dtype {' or '.join(DTYPE_BYTES)}, found {dtype!r}")
        vocab_size = values.get("vocab_size", int)
        if not 0 < vocab_size <= 1 << 8 * DTYPE_BYTES[dtype]:
            raise DataError(f"{path}: vocab_size {vocab_size} does not fit dtype {dtype}")
        end_of_text_id = values.get("end_of_text_id", int, type(None))
        if end_of_text_id is not None and not 0 <= end_of_text_id < vocab_size:
            raise DataError(
                f"{path}: end_of_text_id {end_of_text_id} is outside the vocabulary of {vocab_size}"
            )
        splits = {name: _split_info(part) for name, part in values.parts("splits").items()}
        if "train" not in splits or set(splits) - {"train", "val"}:
            raise DataError(f"{path}: expected the splits train and val, found {', '.join(splits) or 'none'}")
        return cls(
            pylm_version=values.get("pylm_version", str),
            dtype=dtype,
            vocab_size=vocab_size,
            tokenizer_sha256=values.get("tokenizer_sha256", str),
            end_of_text_id=end_of_text_id,
            special_ids=values.get("special_ids", dict),
            split=values.get("split", dict),
            sources=tuple(_source(part) for part in values.items("sources")),
            splits=splits,
            settings=values.get("settings", dict),
        )


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Fields:
    """A JSON object whose fields are read with their types checked; `where` leads each message."""

    def __init__(self, where: Path | str, values: Any) -> None:
        if not isinstance(values, dict):
            raise DataError(f"{where}: expected an object, found {values!r}")
        self.where, self.values = where, values

    def get(self, name: str, *types: type) -> Any:
        value = self.values.get(name)
        right = isinstance(value, types) and not isinstance(value, bool)
        if not right or (isinstance(value, int) and value < 0):
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            found = repr(value) if name in self.values else "nothing"
            raise DataError(f"{self.where}: {name}: expected {expected}, found {found}")
        return value

    def parts(self, name: str) -> dict[str, "_Fields"]:
        return {
            key: _Fields(f"{self.where}: {name}.{key}", value) for key, value in self.get(name, dict).items()
        }

    def items(self, name: str) -> list["_Fields"]:
        return [
            _Fields(f"{self.where}: {name}[{index}]", value)
            for index, value in enumerate(self.get(name, list))
        ]


def _split_info(values: _Fields) -> SplitInfo:
    files = tuple(_token_file(part) for part in values.items("files"))
    info = SplitInfo(files, *(values.get(name, int) for name in ("n_tokens", "n_documents", "text_bytes")))
    if not files or sum(file.n_tokens for file in files) != info.n_tokens:
        raise DataError(
            f"{values.where}: n_tokens {info.n_tokens:,} is not the sum of its {len(files)} files"
        )
    return info


def _token_file(values: _Fields) -> TokenFile:
    name = values.get("name", str)
    if Path(name).name != name or name.startswith("."):
        raise DataError(f"{values.where}: name: expected a file of this folder, found {name!r}")
    return TokenFile(name, values.get("n_tokens", int), values.get("sha256", str))


def _source(values: _Fields) -> Source:
    return Source(
        values.get("path", str),
        values.get("size_bytes", int),
        values.get("sha256", str),
        values.get("split", str) if "split" in values.values else None,
    )
