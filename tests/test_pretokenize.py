"""Pre-tokens equal tiktoken's and Hugging Face's: the scanners here, the regular expressions there."""

import itertools
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiktoken
import tokenizers

from pylm import _bpe
from pylm.errors import ConfigError, DataError

# As tiktoken 0.14 publishes them (tiktoken_ext/openai_public.py).
TIKTOKEN_PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
SETS = [
    "alnum",
    "alpha",
    "ascii",
    "blank",
    "cntrl",
    "digit",
    "lower",
    "punct",
    "space",
    "upper",
    "word",
    "xdigit",
]
SCANNED = ["gpt2", "cl100k", "llama3", "o200k", "whitespace"]
# One or more characters of each class and every one that a pattern names.
ALPHABET = (
    "astrevlASLéÉſǅʰª中𐐀𐐨\u0301\u0903\u20dd1٣Ⅷ½𝟘 \t\n\r\x85\xa0\u2028\u3000'/!’。😀\0\u200d\u0378\ufffd"  # noqa: RUF001
)


def pretokens(pattern: str, text: str) -> list[bytes]:
    """The pre-tokens by the scanner."""
    data = text.encode()
    ends = _bpe.split(pattern, data)
    assert ends.dtype == np.uint64
    starts = [0, *ends.tolist()]
    return [data[start:end] for start, end in itertools.pairwise(starts)]


def tiktoken_pretokens(pattern: str, text: str, ours: list[bytes]) -> list[bytes]:
    """The pre-tokens by tiktoken, if they are `ours`: those are made whole tokens, all else falls into bytes."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for piece in ours:
        ranks.setdefault(piece, len(ranks))
    encoding = tiktoken.Encoding(
        "made up", pat_str=TIKTOKEN_PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={}
    )
    return encoding.decode_tokens_bytes(encoding.encode_ordinary(text))


def huggingface_pretokens(regex: str, text: str) -> list[bytes]:
    """The pre-tokens by Hugging Face's Split, which tokenizer.json names."""
    splitter = tokenizers.pre_tokenizers.Split(tokenizers.Regex(regex), "isolated")
    return [piece.encode() for piece, _ in splitter.pre_tokenize_str(text)]


def texts() -> Iterator[str]:
    """Random text, code points in contexts (all, against the same expressions, in the crate's tests), real sources."""
    source = random.Random(0)
    for _ in range(300):
        yield "".join(source.choices(ALPHABET, k=source.randrange(1, 60)))
    yield "".join(source.choices(ALPHABET, k=30_000))
    codes = [*range(0x3400), *range(0x3400, 0xD800, 97), *range(0xE000, 0x110000, 31)]
    for context in ("{}x", "!{0}'{0}\n"):
        yield "".join(context.format(chr(code)) for code in codes)
    for name in ("argparse.py", "encodings/cp1251.py"):
        yield (Path(sysconfig.get_path("stdlib")) / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("pattern", TIKTOKEN_PATTERNS)
def test_pretokens_equal_tiktokens(pattern: str) -> None:
    for text in texts():
        ours = pretokens(pattern, text)
        assert ours == tiktoken_pretokens(pattern, text, ours)


@pytest.mark.parametrize("pattern", SCANNED)
def test_the_regex_that_is_written_splits_alike_in_hugging_face(pattern: str) -> None:
    regex = _bpe.pattern_regex(pattern)
    assert regex is not None
    for text in texts():
        assert pretokens(pattern, text) == huggingface_pretokens(regex, text)


@pytest.mark.parametrize(
    "regex",
    [
        r"(?=[A-Z])",
        r"[0-9]{1,2}+",
        r"^.*$",
        r"a*",
        r"(?<=s)t|\S",
        r"\p{Lu}?\p{Ll}+|.",
        "x{0}",
        r"\w|\d{2}",
        r"[\w]+|[^\W\d]",
        r"\b",
        r"\B.|\W",
        r"\h|\d",
        *(f"[[:{name}:]]|[^[:{name}:]][[:^{name}:]]" for name in SETS),
    ],
)
def test_a_users_regex_splits_as_in_hugging_face(regex: str) -> None:
    codes = [*range(0x3400), *range(0x3400, 0xD800, 97), *range(0xE000, 0x110000, 311)]
    every = "".join(chr(code) * 2 for code in codes)
    for text in [*itertools.islice(texts(), 301), every, "fooBarBaz 12345 aab\n\nsts'st\r\n"]:
        assert pretokens(regex, text) == huggingface_pretokens(regex, text)


def test_published_spellings_are_the_named_patterns() -> None:
    for pattern, regex in TIKTOKEN_PATTERNS.items():
        assert _bpe.pattern_regex(regex) == _bpe.pattern_regex(pattern)
    assert _bpe.pattern_regex("none") is None


def test_a_pattern_that_cannot_be_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no regular expression"):
        _bpe.split("(", b"text")
    with pytest.raises(ConfigError, match='has the set "print", which libraries read differently'):
        _bpe.split("[[:print:]]", b"text")


def test_a_hostile_pattern_ends_in_an_error() -> None:
    with pytest.raises(DataError, match=r"given up: .*, at byte 0"):
        _bpe.split(r"(?:a|b|ab)*c(?!x)", b"ab" * 1_000_000)


def test_a_bad_byte_is_a_replacement_character_to_an_expression() -> None:
    data = b"a\t\0\x9b\x9b\0\x0c*$\nab\x03\x0b\0\x0c\n\xa0"
    for regex in ["^.*^.$", "(?<=.)[^a](?!b)", r"\uFFFD|\w"]:
        seen = "".join(char if char < "\x80" else "\ufffd" for char in data.decode("latin-1"))
        expected = [len(piece.decode()) for piece in pretokens(regex, seen)]
        assert np.diff(_bpe.split(regex, data), prepend=0).tolist() == expected


def test_bytes_that_are_no_utf8_are_neither_letters_nor_space() -> None:
    assert _bpe.split("gpt2", b"caf\xe9 1\xff2 \xc3\xa9").tolist() == [3, 4, 6, 7, 8, 11]
