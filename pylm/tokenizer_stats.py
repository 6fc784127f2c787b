"""How well tokenizers fit texts: bytes per token on sampled documents, and how fast they encode."""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pylm import _bpe
from pylm.corpus import InputFile, find_inputs
from pylm.errors import ConfigError, DataError
from pylm.tokenizer import Tokenizer

# The corpus that throughput is told for: that of the Pile (Gao et al. 2020).
PROJECTED_BYTES = 825 * 10**9


@dataclass(frozen=True)
class Fit:
    """One tokenizer on one text.

    Bytes per token are those of the sampled documents together. Throughput is that of all that was read, encoded
    once by a tokenizer that had seen nothing.
    """

    tokenizer: str
    text: str
    n_documents: int
    n_sampled: int
    sampled_bytes: int
    sampled_tokens: int
    longest_token: bytes
    encoded_bytes: int
    encode_s: float

    @property
    def bytes_per_token(self) -> float:
        """Of the sampled documents."""
        return self.sampled_bytes / self.sampled_tokens

    @property
    def bytes_per_s(self) -> float:
        """Of all that was read."""
        return self.encoded_bytes / self.encode_s

    @property
    def projected_s(self) -> float:
        """Seconds that 825 GB would take at this rate."""
        return PROJECTED_BYTES / self.bytes_per_s

    def as_json(self) -> dict[str, Any]:
        """Names to values of JSON."""
        return {
            "tokenizer": self.tokenizer,
            "text": self.text,
            "n_documents": self.n_documents,
            "n_sampled": self.n_sampled,
            "sampled_bytes": self.sampled_bytes,
            "sampled_tokens": self.sampled_tokens,
            "bytes_per_token": self.bytes_per_token,
            "longest_token": {
                "n_bytes": len(self.longest_token),
                "hex": self.longest_token.hex(),
                "text": self.longest_token.decode(errors="replace"),
            },
            "encoded_bytes": self.encoded_bytes,
            "encode_s": self.encode_s,
            "mb_per_s": self.bytes_per_s / 1e6,
            "hours_for_825_gb": self.projected_s / 3600,
        }


def read_documents(argument: str, *, format_name: str, field: str, limit_bytes: int | None) -> list[bytes]:
    """Return the documents of a file, folder or glob that are not empty, of each file at most its first bytes."""
    files: list[InputFile] = find_inputs([argument], format_name)
    documents = _bpe.read_documents(
        [(file.path, file.format, file.packing, False) for file in files], field, limit_bytes
    )
    if not documents:
        raise DataError(f"{argument}: expected text, found only empty documents")
    return documents


def fit(
    tokenizers: Mapping[str, Tokenizer],
    texts: Mapping[str, Sequence[bytes]],
    *,
    n_sampled: int = 10,
    seed: int = 0,
    threads: int | None = None,
) -> list[Fit]:
    """Cross tokenizers with texts, all measured on the same `n_sampled` documents of each text.

    Documents are encoded with special tokens as plain text: it is text that is measured.
    """
    if n_sampled < 1:
        raise ConfigError(f"documents to sample: expected at least 1, found {n_sampled}")
    return [
        _fit(name, tokenizer, text_name, documents, n_sampled, seed, threads)
        for text_name, documents in texts.items()
        for name, tokenizer in tokenizers.items()
    ]


def _fit(
    name: str,
    tokenizer: Tokenizer,
    text_name: str,
    documents: Sequence[bytes],
    n_sampled: int,
    seed: int,
    threads: int | None,
) -> Fit:
    begin_s = time.perf_counter()
    encoded = tokenizer.with_empty_cache().encode_batch(documents, special="text", threads=threads)
    encode_s = time.perf_counter() - begin_s
    sample = sorted(random.Random(seed).sample(range(len(documents)), min(n_sampled, len(documents))))
    lengths = tokenizer.token_lengths()
    used = np.unique(np.concatenate([encoded[index] for index in sample]))
    longest = int(used[np.argmax(lengths[used])])
    return Fit(
        tokenizer=name,
        text=text_name,
        n_documents=len(documents),
        n_sampled=len(sample),
        sampled_bytes=sum(len(documents[index]) for index in sample),
        sampled_tokens=sum(len(encoded[index]) for index in sample),
        longest_token=tokenizer.token_bytes(longest),
        encoded_bytes=sum(map(len, documents)),
        encode_s=encode_s,
    )
