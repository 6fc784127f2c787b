"""Text to token ids and back: `Tokenizer`, over the core in Rust.

tokenizer = Tokenizer.train(["text", "more text"], vocab_size=300)
ids = tokenizer.encode("some text")          # numpy, uint16 or uint32
assert tokenizer.decode(ids) == "some text"
tokenizer.save("tokenizer.json")             # opens in Hugging Face's tokenizers with the same ids
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from pylm import _bpe
from pylm.errors import ConfigError, DataError
from pylm.files import write_bytes
from pylm.published import PUBLISHED_NAMES, find_published

Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Special = Literal["error", "allow", "text"]
SpecialIds = Literal["end", "front"]
Ties = Literal["bytes", "ids", "huggingface"]

END_OF_TEXT = "<|endoftext|>"

# Texts that are counted at once: enough for every thread, little beside what a corpus has.
_BATCH_BYTES = 16 << 20


class Tokenizer:
    """A vocabulary, immutable: encodes text to ids and decodes ids.

    Methods that take text take str or bytes; str counts as its UTF-8. `special` says what is done where the text holds
    the string of a special token: "error" (the default: text from strangers must not speak for the program), "allow"
    (it is that token) or "text" (it is plain text).

    Raises everywhere: DataError for a text or file that cannot be taken, ConfigError for a setting that cannot be.
    """

    __slots__ = ("_core",)

    def __init__(self, core: _bpe.Tokenizer) -> None:
        self._core = core

    # Making one

    @classmethod
    def train(
        cls,
        texts: Iterable[str | bytes | Path],
        *,
        vocab_size: int,
        pattern: str = "gpt2",
        alphabet: Literal["bytes", "chars"] = "bytes",
        special_tokens: Sequence[str] | None = None,
        special_ids: SpecialIds = "end",
        ties: Ties = "bytes",
        min_frequency: int = 1,
        max_token_bytes: int | None = None,
        threads: int | None = None,
    ) -> Self:
        """Learn a BPE vocabulary from texts, each a document, or a Path to a file of it.

        Args:
            texts: read once, a few at a time. Special tokens in them are not learned from.
            vocab_size: ids in all, the base alphabet and special tokens included. Fewer come out when pairs run out.
            pattern: gpt2, cl100k, o200k, whitespace, none, or a regular expression.
            alphabet: what merges start from: the 256 bytes, or the characters of the texts (and `<unk>`).
            special_tokens: by default `<|endoftext|>`; with special_ids="front" none beside the four.
            special_ids: "end" numbers special tokens last; "front" has `<unk>` 0, `<s>` 1, `</s>` 2, `<pad>` 3.
            ties: which of several most frequent pairs is merged first: the greater pair of byte strings, the lower
                pair of ids, or the one Hugging Face's trainer takes.
            min_frequency: a pair that occurs less often is never merged.
            max_token_bytes: a merge whose result would be longer is never made.
            threads: by default one a core; the result is the same with any number.
        """
        if special_tokens is None:
            special_tokens = () if special_ids == "front" else (END_OF_TEXT,)
        if alphabet not in ("bytes", "chars"):
            raise ConfigError(f"alphabet {alphabet!r}: expected bytes or chars")
        for name, number in (
            ("vocab_size", vocab_size),
            ("min_frequency", min_frequency),
            ("max_token_bytes", max_token_bytes or 0),
        ):
            if not 0 <= number < 2**63:
                raise ConfigError(f"{name} {number}: expected 0 to {2**63 - 1}")
        _check_several("texts", texts)
        over_bytes = alphabet == "bytes"
        learner = _bpe.Learner(
            pattern, over_bytes, _specials(special_tokens), special_ids, _n_threads(threads)
        )
        for batch in _batches(texts):
            learner.add(batch)
        return cls(learner.learn(vocab_size, ties, min_frequency, max_token_bytes))

    @classmethod
    def byte(cls, special_tokens: Sequence[str] = (END_OF_TEXT,), special_ids: SpecialIds = "end") -> Self:
        """Return the vocabulary of the 256 bytes, without merges."""
        return cls(_bpe.Tokenizer.byte(_specials(special_tokens), special_ids))

    @classmethod
    def char(
        cls,
        characters: Iterable[str],
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        special_ids: SpecialIds = "end",
    ) -> Self:
        """Return the vocabulary of the distinct ones among `characters`, sorted, without merges.

        Another character is `<unk>` where that is among the special tokens, else a DataError with its position.
        """
        distinct = "".join(sorted(set().union(*characters)))
        return cls(_bpe.Tokenizer.char(distinct, _specials(special_tokens), special_ids))

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> Self:
        """Open a vocabulary: a file, a folder that holds one, or a published name (gpt2, cl100k, o200k).

        A file is a tokenizer.json, a published .tiktoken file (known by its sha256) or GPT-2's encoder.json or
        vocab.json with its merges beside it. A name is looked for in the folder that $TIKTOKEN_CACHE_DIR names.
        """
        path = Path(source)
        if not path.exists() and (files := find_published(str(source))):
            return cls.from_tiktoken(files[0]) if len(files) == 1 else cls.from_gpt2(*files)
        if not path.exists():
            raise DataError(
                f"{source}: expected a vocabulary file, a folder that holds one, or {', '.join(PUBLISHED_NAMES)}; "
                "found nothing of that name"
            )
        if path.is_dir():
            path = _file_in(path)
        if path.suffix == ".tiktoken":
            return cls.from_tiktoken(path)
        if path.name in _GPT2_FILES:
            return cls.from_gpt2(path, path.with_name(_GPT2_FILES[path.name]))
        return cls(_bpe.Tokenizer.from_huggingface(path))

    @classmethod
    def from_tiktoken(
        cls,
        path: str | os.PathLike[str],
        *,
        pattern: str | None = None,
        special_tokens: Mapping[str, int] | None = None,
    ) -> Self:
        """Read a .tiktoken file. One that is not published by tiktoken needs `pattern`; see `train` for patterns."""
        specials = None if special_tokens is None else list(special_tokens.items())
        return cls(_bpe.Tokenizer.from_tiktoken(Path(path), pattern, specials))

    @classmethod
    def from_gpt2(
        cls,
        vocab: str | os.PathLike[str],
        merges: str | os.PathLike[str],
        *,
        special_tokens: Sequence[str] | None = None,
    ) -> Self:
        """Read GPT-2's two files, tokens to ids and merges.

        `special_tokens` names tokens of the vocabulary; by default `<|endoftext|>` where it is one.
        """
        specials = None if special_tokens is None else _specials(special_tokens)
        return cls(_bpe.Tokenizer.from_gpt2(Path(vocab), Path(merges), specials))

    # Writing it

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a tokenizer.json in one step: the same bytes for the same vocabulary."""
        write_bytes(Path(path), self._core.to_json())

    def save_tiktoken(self, path: str | os.PathLike[str]) -> None:
        """Write a .tiktoken file; the pattern and the special tokens are not in it.

        ConfigError when tiktoken would give other ids: over characters, or when ranks are not in the order of the ids.
        """
        write_bytes(Path(path), self._core.to_tiktoken())

    def save_gpt2(self, folder: str | os.PathLike[str]) -> None:
        """Write vocab.json and merges.txt into a folder.

        ConfigError when GPT-2's code would give other ids: over characters, or with another pattern than gpt2.
        """
        vocab, merges = self._core.to_gpt2()
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_bytes(Path(folder) / "vocab.json", vocab)
        write_bytes(Path(folder) / "merges.txt", merges)

    # Using it

    def encode(self, text: str | bytes, special: Special = "error") -> Ids:
        """Return the ids of a text: shape (n_tokens,), `dtype`."""
        return self._core.encode(_utf8(text), special)

    def encode_batch(
        self, texts: Iterable[str | bytes], special: Special = "error", *, threads: int | None = None
    ) -> list[Ids]:
        """Return the ids of each text, encoded on several threads (by default one a core)."""
        _check_several("texts", texts)
        return self._core.encode_batch([_utf8(text) for text in texts], special, _n_threads(threads))

    def encode_iterable(self, chunks: Iterable[str | bytes], special: Special = "error") -> Iterator[Ids]:
        """Encode one text that comes in chunks, cut anywhere: yield its ids in arrays, as they become certain.

        Their concatenation is `encode` of the whole text. Memory holds the unfinished pre-token and one chunk. The
        patterns `none` (with merges) and a regular expression have no end of a pre-token before the end of the text:
        there the text is held, up to 64 MiB, else DataError.
        """
        stream = self._core.stream(special)
        if isinstance(chunks, str | bytes):
            chunks = [chunks]
        for chunk in chunks:
            ids = stream.push(_utf8(chunk))
            if len(ids):
                yield ids
        ids = stream.finish()
        if len(ids):
            yield ids

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text of ids; bytes that are no UTF-8 become U+FFFD. DataError for an id of no token."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: npt.ArrayLike) -> bytes:
        """Return the bytes of ids: exactly what was encoded. DataError for an id of no token."""
        array = np.asarray(ids)
        if array.size == 0:
            return b""
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(f"ids: expected one row of integers, found {array.ndim} axes of {array.dtype}")
        if array.dtype != np.uint32:
            smallest, largest = int(array.min()), int(array.max())
            if smallest < 0 or largest >= self.vocab_size:
                wrong = smallest if smallest < 0 else largest
                raise DataError(f"id {wrong} is not in the vocabulary (0 to {self.vocab_size - 1})")
        return self._core.decode(np.ascontiguousarray(array, np.uint32))

    # Looking at it

    @property
    def vocab_size(self) -> int:
        """The largest id + 1, special tokens included: the rows of an embedding."""
        return self._core.vocab_size

    @property
    def n_tokens(self) -> int:
        """How many ids have a token: less than vocab_size where ids have holes."""
        return self._core.n_tokens

    @property
    def dtype(self) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
        """The type of an array of ids: uint16 when the largest is below 65,536, else uint32."""
        return np.dtype(np.uint16) if self._core.dtype == "uint16" else np.dtype(np.uint32)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens and their ids."""
        return dict(self._core.special_tokens())

    @property
    def end_of_text_id(self) -> int | None:
        """The id of `<|endoftext|>`, else of `</s>`, else None."""
        return self._core.end_of_text_id

    @property
    def unknown_id(self) -> int | None:
        """What a character without a token becomes; None over bytes, and where it is an error."""
        return self._core.unknown_id

    @property
    def pattern(self) -> str:
        """The pattern's name, or a user's regular expression."""
        return self._core.pattern

    @property
    def alphabet(self) -> Literal["bytes", "chars"]:
        """What merges start from."""
        return "bytes" if self._core.over_bytes else "chars"

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """The pairs of tokens that become one, by rank."""
        return self._core.merges()

    @property
    def n_merges(self) -> int:
        """How many merges there are."""
        return self._core.n_merges

    @property
    def ignore_merges(self) -> bool:
        """Whether a pre-token that is a token stays whole even where merges would not make it (tiktoken's rule)."""
        return self._core.ignore_merges

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes of its tokenizer.json: what a dataset and a run know it by."""
        return self._core.sha256

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token, the string of a special one. DataError for an id of no token."""
        token = self._core.token_bytes(token_id) if 0 <= token_id < self.vocab_size else None
        if token is None:
            raise DataError(f"id {token_id} is not in the vocabulary (0 to {self.vocab_size - 1})")
        return token

    def token_lengths(self) -> npt.NDArray[np.uint32]:
        """Return the bytes of text each token stands for, by id, 0 for special ones: shape (vocab_size,), uint32."""
        return self._core.token_lengths()

    def token_id(self, token: str | bytes) -> int | None:
        """Return the id of an ordinary token, None when there is none such."""
        return self._core.id_of(_utf8(token))

    def unreached_ids(self) -> list[int]:
        """Return the ids of the ordinary tokens that merging never makes from their own bytes."""
        return self._core.unreached()

    def with_empty_cache(self) -> Self:
        """Return the same vocabulary with nothing remembered of texts: for measuring."""
        return type(self)(self._core.with_empty_cache())

    def __repr__(self) -> str:
        kind = f"{self.n_merges} merges over {self.alphabet}, pattern {self.pattern}"
        return f"<Tokenizer: {self.vocab_size} ids, {kind}>"


# Tokens to ids, and the merges beside them: as OpenAI and as Hugging Face name the files of GPT-2.
_GPT2_FILES = {"encoder.json": "vocab.bpe", "vocab.json": "merges.txt"}


def _file_in(folder: Path) -> Path:
    names = ["tokenizer.json", *_GPT2_FILES]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: expected one of {', '.join(names)} in it, found none")


def _utf8(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise DataError(f"expected text as str or bytes, found {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"half a surrogate pair, at character {error.start}: not text that UTF-8 can hold"
        ) from None


def _batches(texts: Iterable[str | bytes | Path]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for text in texts:
        batch.append(_read(text) if isinstance(text, Path) else _utf8(text))
        size += len(batch[-1])
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def _specials(strings: Sequence[str]) -> list[str]:
    _check_several("special_tokens", strings)
    return list(strings)


def _check_several(name: str, given: object) -> None:
    """Refuse a single text where several are expected: its characters would be taken for them."""
    if isinstance(given, str | bytes | Path):
        raise ConfigError(
            f"{name}: expected a list of them, found one {type(given).__name__}: put it into a list"
        )


def _n_threads(threads: int | None) -> int:
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads {threads}: expected at least 1")
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
