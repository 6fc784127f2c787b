"""The published vocabularies give the ids of tiktoken and Hugging Face; skipped where ../shared is absent.

With PYLM_WHOLE_TEXTS=1 every byte of ../shared/data is compared, in minutes.
"""

import hashlib
import lzma
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiktoken
import tokenizers

from pylm.tokenizer import Tokenizer

SHARED = Path(os.environ.get("PYLM_SHARED", Path(__file__).parents[1].parent / "shared"))
NAMES = {"gpt2": "gpt2", "cl100k": "cl100k_base", "o200k": "o200k_base"}
# tiktoken and Hugging Face are 50 times slower: of the largest texts a part is compared, unless all is asked for.
COMPARED_BYTES = 1 << 18
COMPARED_BY_HUGGING_FACE_BYTES = 1 << 14
WHOLE = os.environ.get("PYLM_WHOLE_TEXTS") == "1"
# What tiktoken looks for in the folder of TIKTOKEN_CACHE_DIR.
CACHED = {
    "gpt2_vocab.bpe": "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
    "gpt2_encoder.json": "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
    "cl100k_base.tiktoken": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base.tiktoken": "fb374d419588a4632f3f557e76b4b70aebbca790",
}

pytestmark = pytest.mark.skipif(not (SHARED / "data" / "vocab").is_dir(), reason="skipped: ../shared absent")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Every text of ../shared, of the large ones a part from their middle, and text made to be difficult."""
    return [*(whole_texts() if WHOLE else shared_texts()), *difficult_texts()]


def shared_texts() -> Iterator[str]:
    for path in sorted((SHARED / "data").glob("*/*")):
        if path.parent.name != "vocab":
            text = unpacked(path)
            start = max(0, len(text) // 2 - COMPARED_BYTES // 2)
            yield text[start : start + COMPARED_BYTES].decode(errors="ignore")


def whole_texts() -> Iterator[str]:
    """All of every file, the vocabularies' own as well, in parts that end with a line where a text has lines."""
    for path in sorted(path for path in (SHARED / "data").rglob("*") if path.is_file()):
        text = unpacked(path).decode()
        start = 0
        while start < len(text):
            end = text.find("\n", start + COMPARED_BYTES) + 1 or len(text)
            yield text[start:end]
            start = end


def unpacked(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def difficult_texts() -> Iterator[str]:
    source = random.Random(0)
    parts = [
        *" \n\t\r\x85\xa0\u2028\u3000aZé\u017f語🙂1½'/_.\0",
        "'s",
        "'LL",
        "\r\n",
        "\u0301",
        "<|endoftext|>",
        "<|fim_prefix|>",
    ]
    for _ in range(200):
        yield "".join(source.choices(parts, k=source.randrange(200)))
    for character in [" ", "\n", "a", "1", "語", "-", "\u3000", "🙂", "\u0301", "\0"]:
        yield character * 3000
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    yield "".join(chr(code) for code in source.sample(codes, 20_000))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, cached in CACHED.items():
        (tmp_path / cached).symlink_to((SHARED / "data" / "vocab" / name).resolve())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_tiktokens(name: str, texts: list[str]) -> None:
    ours, theirs = Tokenizer.load(name), tiktoken.get_encoding(NAMES[name])
    assert ours.vocab_size == theirs.n_vocab
    assert ours.special_tokens == theirs._special_tokens
    for text in texts:
        ids = ours.encode(text, special="allow")
        assert np.array_equal(ids, theirs.encode_to_numpy(text, allowed_special="all"))
        assert ours.decode_bytes(ids) == text.encode()
        if "<|" in text:
            plain = theirs.encode_to_numpy(text, disallowed_special=())
            assert np.array_equal(ours.encode(text, special="text"), plain)


@pytest.mark.parametrize("name", NAMES)
def test_hugging_face_opens_the_saved_file_with_the_same_ids(
    name: str, texts: list[str], cache: Path
) -> None:
    ours = Tokenizer.load(name)
    ours.save(cache / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(cache / "tokenizer.json"))
    again = Tokenizer.load(cache / "tokenizer.json")
    assert again.sha256 == ours.sha256
    for text in texts:
        part = text if WHOLE else text[:COMPARED_BY_HUGGING_FACE_BYTES]
        ids = ours.encode(part, special="allow").tolist()
        assert theirs.encode(part, add_special_tokens=False).ids == ids
        assert again.encode(part, special="allow").tolist() == ids


@pytest.mark.usefixtures("cache")
def test_gpt2_is_written_as_the_published_r50k_file_and_read_again(tmp_path: Path) -> None:
    ours = Tokenizer.load("gpt2")
    ours.save_tiktoken(tmp_path / "r50k_base.tiktoken")
    digest = hashlib.sha256((tmp_path / "r50k_base.tiktoken").read_bytes()).hexdigest()
    assert digest == "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
    again = Tokenizer.load(tmp_path / "r50k_base.tiktoken")
    assert again.merges == ours.merges
    assert (again.pattern, again.special_tokens) == ("gpt2", {"<|endoftext|>": 50256})


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["cl100k", "o200k"])
def test_a_published_tiktoken_file_is_written_as_it_was(name: str, tmp_path: Path) -> None:
    Tokenizer.load(name).save_tiktoken(tmp_path / "x.tiktoken")
    published = SHARED / "data" / "vocab" / f"{name}_base.tiktoken"
    assert (tmp_path / "x.tiktoken").read_bytes() == published.read_bytes()


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", NAMES)
def test_every_published_token_is_reached_by_merging(name: str) -> None:
    assert Tokenizer.load(name).unreached_ids() == []


def test_characters_of_tinyshakespeare_make_566_ids() -> None:
    text = (SHARED / "data" / "english" / "tinyshakespeare.txt").read_text()
    options = {"pattern": "none", "alphabet": "chars", "special_tokens": []}
    tokenizer = Tokenizer.train([text], vocab_size=566, **options)  # type: ignore[arg-type]
    assert (tokenizer.vocab_size, tokenizer.n_merges) == (566, 500)
    assert tokenizer.special_tokens == {"<unk>": 65}
    assert tokenizer.decode(tokenizer.encode(text)) == text
