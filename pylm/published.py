"""Where published vocabularies are found: in the folder of $TIKTOKEN_CACHE_DIR. Nothing is downloaded."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pylm.errors import DataError

_HOME = "https://openaipublic.blob.core.windows.net"


@dataclass(frozen=True)
class _File:
    url: str
    sha256: str

    @property
    def names(self) -> tuple[str, str]:
        """The published name, and the one that tiktoken gives it in its cache."""
        return self.url.rpartition("/")[2], hashlib.sha1(self.url.encode()).hexdigest()


# Source: tiktoken 0.14, tiktoken_ext/openai_public.py.
_PUBLISHED = {
    "gpt2": (
        _File(
            f"{_HOME}/gpt-2/encodings/main/encoder.json",
            "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        ),
        _File(
            f"{_HOME}/gpt-2/encodings/main/vocab.bpe",
            "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        ),
    ),
    "cl100k": (
        _File(
            f"{_HOME}/encodings/cl100k_base.tiktoken",
            "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        ),
    ),
    "o200k": (
        _File(
            f"{_HOME}/encodings/o200k_base.tiktoken",
            "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        ),
    ),
}

PUBLISHED_NAMES = tuple(_PUBLISHED)


def find_published(name: str) -> list[Path]:
    """Return the files of a published vocabulary: one .tiktoken file, or encoder.json and vocab.bpe.

    Empty when no vocabulary of this name is published. DataError when a file is not there or not the published one.
    """
    return [_find(name, file) for file in _PUBLISHED.get(name, ())]


def _find(name: str, file: _File) -> Path:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    if not folder:
        raise DataError(
            f"{name}: set TIKTOKEN_CACHE_DIR to a folder that holds {file.names[0]}, which is published at {file.url}"
        )
    for path in (Path(folder) / file_name for file_name in file.names):
        if path.is_file():
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != file.sha256:
                raise DataError(
                    f"{path}: not the published file: expected sha256 {file.sha256}, found {found}"
                )
            return path
    expected = " or ".join(file.names)
    raise DataError(f"{name}: expected {expected} in {folder}, found none; it is published at {file.url}")
