"""Merges: equal to an independent slow trainer, to Hugging Face's own, and known where the number is known."""

import collections
import itertools
import json
import os
import random
import sysconfig
from pathlib import Path
from typing import Any, Literal

import pytest
import regex
import tokenizers

from pylm import _bpe

Merges = list[tuple[bytes, bytes]]
Ties = Literal["bytes", "ids", "huggingface"]
TIES: list[Ties] = ["bytes", "ids", "huggingface"]

SHARED = Path(os.environ.get("PYLM_SHARED", Path(__file__).parents[2] / "shared"))
SOURCE = (Path(sysconfig.get_path("stdlib")) / "argparse.py").read_text(encoding="utf-8")

# GPT-2's `bytes_to_unicode`: bytes that are visible in Latin-1 stand for themselves, the others for U+0100 and so on.
VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
HIDDEN = [byte for byte in range(256) if byte not in VISIBLE]
CHARACTER_OF = {byte: chr(byte) for byte in VISIBLE} | {byte: chr(0x100 + i) for i, byte in enumerate(HIDDEN)}
BYTE_OF = {character: byte for byte, character in CHARACTER_OF.items()}


def made_up_text(seed: int) -> str:
    """Text of few letters: runs, overlaps and ties everywhere."""
    rng = random.Random(seed)
    letters = "ab é\n1漢"[: rng.randrange(2, 8)]
    return "".join(rng.choice(letters) for _ in range(rng.choice([60, 600, 2000])))


def slow_merges(
    text: str, n_merges: int, ties: Ties, min_frequency: int = 1, max_token_bytes: int | None = None
) -> Merges:
    """Count all pairs again before every merge."""
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    counts = collections.Counter(match.group() for match in regex.finditer(pattern, text))
    words = [([bytes([byte]) for byte in word.encode()], count) for word, count in counts.items()]
    order = [bytes([byte]) for byte in (VISIBLE + HIDDEN if ties == "huggingface" else range(256))]
    rank = {token: i for i, token in enumerate(order)}
    merges: Merges = []
    while len(merges) < n_merges:
        pairs: collections.Counter[tuple[bytes, bytes]] = collections.Counter()
        for tokens, count in words:
            for pair in itertools.pairwise(tokens):
                pairs[pair] += count
        limit = max_token_bytes or len(text.encode())
        allowed = [
            pair for pair, n in pairs.items() if n >= min_frequency and len(pair[0] + pair[1]) <= limit
        ]
        if not allowed:
            break
        best = max(pairs[pair] for pair in allowed)
        tied = [pair for pair in allowed if pairs[pair] == best]
        left, right = (
            max(tied) if ties == "bytes" else min(tied, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
        )
        merges.append((left, right))
        rank[left + right] = len(rank)
        words = [(join(tokens, left, right), count) for tokens, count in words]
    return merges


def join(tokens: list[bytes], left: bytes, right: bytes) -> list[bytes]:
    joined: list[bytes] = []
    i = 0
    while i < len(tokens):
        is_pair = tokens[i : i + 2] == [left, right]
        joined.append(left + right if is_pair else tokens[i])
        i += 1 + is_pair
    return joined


def huggingface_merges(text: str, n_merges: int, **options: Any) -> Merges:
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = byte_level
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=256 + n_merges, initial_alphabet=byte_level.alphabet(), show_progress=False, **options
    )
    tokenizer.train_from_iterator([text], trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(to_bytes(left), to_bytes(right)) for left, right in merges]


def to_bytes(characters: str) -> bytes:
    return bytes(BYTE_OF[character] for character in characters)


def our_merges(
    text: str,
    n_merges: int,
    ties: Ties = "bytes",
    min_frequency: int = 1,
    max_token_bytes: int | None = None,
    *,
    special_tokens: tuple[str, ...] = (),
    threads: int = 2,
) -> Merges:
    learner = _bpe.Learner("gpt2", True, list(special_tokens), "end", threads)
    learner.add([text.encode()])
    vocab_size = 256 + n_merges + len(special_tokens)
    return learner.learn(vocab_size, ties, min_frequency, max_token_bytes).merges()


def shared_text(name: str) -> str:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip("../shared absent")
    return path.read_bytes().decode()


@pytest.mark.parametrize("ties", ["bytes", "ids", "huggingface"])
def test_merges_of_a_program_equal_the_slow_trainer(ties: Ties) -> None:
    assert our_merges(SOURCE, 300, ties) == slow_merges(SOURCE, 300, ties)


@pytest.mark.parametrize("seed", range(20))
def test_merges_of_made_up_text_equal_the_slow_trainer(seed: int) -> None:
    text = made_up_text(seed)
    for ties in TIES:
        options = (seed % 4, [None, 2, 5][seed % 3])
        assert our_merges(text, 60, ties, *options) == slow_merges(text, 60, ties, *options)


@pytest.mark.parametrize(
    "name",
    ["english/tinyshakespeare.txt", "multilingual/thai_treebank.txt", "english/pride_and_prejudice.txt"],
)
def test_merges_of_shared_texts_equal_the_slow_trainer(name: str) -> None:
    text = shared_text(name)[
        :40_000
    ]  # distinct words make the slow one slow: seconds for 100,000 characters of Thai
    for ties in TIES:
        assert our_merges(text, 80, ties) == slow_merges(text, 80, ties)


@pytest.mark.parametrize("min_frequency", [0, 2, 20])
def test_merges_of_a_program_equal_hugging_faces(min_frequency: int) -> None:
    expected = huggingface_merges(SOURCE, 5000, min_frequency=min_frequency)
    assert our_merges(SOURCE, 5000, "huggingface", min_frequency) == expected


@pytest.mark.parametrize("seed", range(40))
def test_merges_of_made_up_text_equal_hugging_faces(seed: int) -> None:
    """Hugging Face's limit is one more than the longest token, which is what ours is."""
    text, limit = made_up_text(seed), [None, 4, 6, 9][seed % 4]
    expected = huggingface_merges(text, 80, min_frequency=seed % 3, max_token_length=limit)
    assert our_merges(text, 80, "huggingface", seed % 3, limit and limit - 1) == expected


@pytest.mark.parametrize("name", ["english/tinystories_2M.txt", "tests/utf8tests.txt", "tests/blns.txt"])
def test_merges_of_shared_texts_equal_hugging_faces(name: str) -> None:
    text = shared_text(name)
    assert our_merges(text, 3000, "huggingface") == huggingface_merges(text, 3000)


def test_ten_thousand_ids_on_tinystories_are_9743_merges_with_any_threads() -> None:
    text = shared_text("english/tinystories_2M.txt")
    merges = our_merges(text, 10_000 - 257, special_tokens=("<|endoftext|>",), threads=1)
    assert len(merges) == 9_743
    assert not any(b"<|" in left + right for left, right in merges)
    assert our_merges(text, 10_000 - 257, special_tokens=("<|endoftext|>",), threads=3) == merges
