"""The tokenizer's face: what goes in comes out, whatever the bytes, the chunks, the threads and the files."""

import itertools
import sysconfig
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylm.errors import ConfigError, DataError
from pylm.tokenizer import Tokenizer

END = "<|endoftext|>"
SOURCE = (Path(sysconfig.get_path("stdlib")) / "argparse.py").read_text(encoding="utf-8")
TRAINED = {
    pattern: Tokenizer.train([SOURCE, "Ein süßes Schälchen 日本語 🙂"], vocab_size=1000, pattern=pattern)
    for pattern in ("gpt2", "cl100k", "o200k", "whitespace", r"\w+|\W")
}
SPECIAL = Tokenizer.train([SOURCE], vocab_size=600, special_tokens=[END, "<|a|>", "<|a|><|b|>", "<|a"])

# Text in which the edges are near: halves of characters, special strings and their beginnings, runs.
chunks = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.text(max_size=8).map(str.encode),
        st.sampled_from(
            [END, "<|", "<|a|>", "<|a|><|b|>", "<|end", " ", "  \n", "'s", "123", "a" * 40, "\0"]
        ).map(str.encode),
    ),
    max_size=12,
)


@pytest.mark.parametrize("pattern", TRAINED)
@given(parts=chunks)
def test_decoding_gives_back_any_bytes(pattern: str, parts: list[bytes]) -> None:
    text = b"".join(parts)
    ids = TRAINED[pattern].encode(text, special="text")
    assert ids.dtype == np.uint16
    assert TRAINED[pattern].decode_bytes(ids) == text


@given(parts=chunks, special=st.sampled_from(["allow", "text"]))
def test_ids_do_not_depend_on_how_a_text_is_cut(parts: list[bytes], special: Any) -> None:
    whole = SPECIAL.encode(b"".join(parts), special)
    pieces = list(SPECIAL.encode_iterable(parts, special))
    assert all(len(piece) for piece in pieces)
    assert np.concatenate([np.empty(0, np.uint16), *pieces]).tolist() == whole.tolist()


def test_a_batch_is_its_texts_one_by_one_on_any_number_of_threads() -> None:
    texts = [SOURCE[start : start + 1000] for start in range(0, len(SOURCE), 1000)] + ["", "é"]
    expected = [TRAINED["gpt2"].encode(text).tolist() for text in texts]
    for threads in (1, 2, 5):
        assert [ids.tolist() for ids in TRAINED["gpt2"].encode_batch(texts, threads=threads)] == expected


def test_special_tokens_are_an_error_allowed_or_plain_text() -> None:
    text = f"x{END}<|a|><|b|><|a|><|ab"
    with pytest.raises(DataError, match=r'special token "<\|endoftext\|>".* at byte 1$'):
        SPECIAL.encode(text)
    ids = SPECIAL.special_tokens
    allowed = SPECIAL.encode(text, special="allow").tolist()
    assert allowed[1:5] == [ids[END], ids["<|a|><|b|>"], ids["<|a|>"], ids["<|a"]]
    assert not set(SPECIAL.encode(text, special="text").tolist()) & set(ids.values())
    assert SPECIAL.decode(allowed) == text
    with pytest.raises(ConfigError, match="expected one of error, allow, text"):
        SPECIAL.encode("x", special="maybe")  # type: ignore[arg-type]


def test_an_error_in_a_stream_or_a_batch_says_where() -> None:
    with pytest.raises(DataError, match=r"at byte 40000$"):
        list(SPECIAL.encode_iterable(itertools.chain(["ab " * 10] * 1333, ["ab " * 3 + "a", END])))
    with pytest.raises(DataError, match=r"text 1: .* at byte 2$"):
        SPECIAL.encode_batch(["fine", "no" + END])


@pytest.mark.parametrize("as_bytes", [False, True])
def test_streaming_five_megabytes_takes_less_than_one_of_memory(as_bytes: bool) -> None:
    def lines() -> Iterator[str | bytes]:
        n_bytes = 0
        while n_bytes < 5_000_000:
            for line in SOURCE.splitlines(keepends=True):
                n_bytes += len(line)
                yield line.encode() if as_bytes else line

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    list(TRAINED["cl100k"].encode_iterable([SOURCE]))
    tokenizer = TRAINED["gpt2"].with_empty_cache()  # a cache that is filled now counts
    n_tokens = 0
    before = resident_bytes()
    tracemalloc.start()
    for ids in tokenizer.encode_iterable(lines()):
        n_tokens += len(ids)
    python_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_tokens > 1_000_000
    assert python_peak < 1_000_000
    assert resident_bytes() - before < 1_000_000


def test_saving_and_loading_is_the_identity(tmp_path: Path) -> None:
    for number, tokenizer in enumerate(
        [*TRAINED.values(), SPECIAL, Tokenizer.byte(), Tokenizer.char("héllo", ["<unk>"])]
    ):
        path = tmp_path / f"{number}.json"
        tokenizer.save(path)
        loaded = Tokenizer.load(path)
        assert loaded.sha256 == tokenizer.sha256
        assert loaded.merges == tokenizer.merges
        assert loaded.special_tokens == tokenizer.special_tokens
        assert (loaded.pattern, loaded.alphabet) == (tokenizer.pattern, tokenizer.alphabet)
        text = SOURCE if tokenizer.alphabet == "bytes" else "holé"
        assert loaded.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_training_again_gives_the_same_bytes_with_any_threads(tmp_path: Path) -> None:
    documents = SOURCE.split("\n\n")
    for threads in (1, 2):
        Tokenizer.train(documents, vocab_size=500, threads=threads).save(tmp_path / f"{threads}.json")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_training_reads_files_and_leaves_special_tokens_alone(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(END.join(["aaa bbb"] * 20))
    tokenizer = Tokenizer.train([path], vocab_size=300)
    assert tokenizer.n_merges < 43  # the pairs ran out
    assert not any(b"<" in left + right or b"e" in left + right for left, right in tokenizer.merges)
    assert tokenizer.token_id(b"aaa") is not None


def test_ids_in_front_and_at_the_end() -> None:
    front = Tokenizer.train([SOURCE], vocab_size=400, special_ids="front", special_tokens=["<|x|>"])
    assert front.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3, "<|x|>": 399}
    assert front.encode("\0").tolist() == [4]
    assert front.end_of_text_id == 2
    assert front.n_merges == 400 - 5 - 256
    end = Tokenizer.train([SOURCE], vocab_size=400)
    assert end.special_tokens == {END: 399}
    assert end.token_bytes(97) == b"a"
    assert end.token_bytes(256) == b"".join(end.merges[0])
    assert end.end_of_text_id == 399


def test_byte_and_char_have_a_token_for_each_symbol() -> None:
    assert Tokenizer.byte(special_tokens=[]).vocab_size == 256
    assert Tokenizer.byte().encode("né").tolist() == [110, 0xC3, 0xA9]
    char = Tokenizer.char("banané", special_tokens=[])
    assert [char.token_bytes(i).decode() for i in range(char.vocab_size)] == ["a", "b", "n", "é"]
    assert char.decode(char.encode("née"[:2] + "b")) == "néb"
    with pytest.raises(DataError, match=r"character 'x' has no token.* at byte 3$"):
        char.encode("néx")
    with pytest.raises(DataError, match=r"not UTF-8.* at byte 1$"):
        char.encode(b"n\xff")
    assert Tokenizer.char("ab", special_tokens=["<unk>"]).encode("axb").tolist() == [0, 2, 1]


def test_bpe_over_characters_has_unk_after_them() -> None:
    text = "hello hallo hullo " * 5
    tokenizer = Tokenizer.train([text], vocab_size=20, pattern="none", alphabet="chars", special_tokens=[])
    assert tokenizer.special_tokens == {"<unk>": 7}
    assert tokenizer.vocab_size == 20
    assert tokenizer.n_merges == 12
    assert tokenizer.unknown_id == 7
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("h?").tolist() == [tokenizer.token_id("h"), 7]


def test_lengths_of_tokens_count_text_alone() -> None:
    tokenizer = TRAINED["gpt2"]
    lengths = tokenizer.token_lengths()
    assert lengths.shape == (1000,)
    assert lengths[tokenizer.special_tokens[END]] == 0
    assert lengths[tokenizer.encode(SOURCE)].sum() == len(SOURCE.encode())


def test_ids_of_no_token_are_errors() -> None:
    byte = Tokenizer.byte(special_tokens=[])
    assert byte.decode([]) == ""
    assert byte.decode(np.array([104, 105], np.int64)) == "hi"
    for ids, message in [
        ([256], "id 256 is not in the vocabulary"),
        ([-1], "id -1 is"),
        ([1 << 40], "id 1099511627776 is"),
        ([1.5], "expected one row of integers"),
        ([[1]], "expected one row of integers"),
    ]:
        with pytest.raises(DataError, match=message):
            byte.decode(ids)
    with pytest.raises(DataError, match="id 256"):
        byte.decode(np.array([256], np.uint32))
    with pytest.raises(DataError, match="id -1"):
        byte.token_bytes(-1)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(DataError, match="half a surrogate pair, at character 1"):
        TRAINED["gpt2"].encode("a\ud83d")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 256}, r"vocab_size 256: expected 257 \(256 bytes and 1 special tokens\)"),
        ({"vocab_size": 3_000_000}, "to 2097151"),
        ({"vocab_size": 300, "pattern": "("}, "no regular expression"),
        ({"vocab_size": 300, "special_tokens": ["a"]}, "also the ordinary token of id 97"),
        ({"vocab_size": 300, "special_tokens": ["<|a|>", "<|a|>"]}, "given twice"),
        ({"vocab_size": 300, "special_tokens": [""]}, "is empty"),
        ({"vocab_size": 300, "ties": "none"}, "expected one of bytes, ids, huggingface"),
        ({"vocab_size": 300, "special_ids": "middle"}, "expected one of end, front"),
        ({"vocab_size": 300, "alphabet": "words"}, "alphabet 'words': expected bytes or chars"),
        ({"vocab_size": -1}, "vocab_size -1: expected 0 to"),
        ({"vocab_size": 2**64}, "vocab_size 18446744073709551616: expected 0 to"),
        ({"vocab_size": 300, "min_frequency": -1}, "min_frequency -1"),
        ({"vocab_size": 300, "max_token_bytes": -1}, "max_token_bytes -1"),
        ({"vocab_size": 300, "threads": 0}, "threads 0: expected at least 1"),
        (
            {"vocab_size": 300, "special_tokens": "<|a|>"},
            "special_tokens: expected a list of them, found one str",
        ),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Tokenizer.train(["some text"], **options)


def test_one_text_where_several_are_expected_is_refused() -> None:
    for several in ("some text", b"some text"):
        with pytest.raises(ConfigError, match="texts: expected a list of them, found one"):
            Tokenizer.train(several, vocab_size=300)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="texts: expected a list of them, found one"):
            TRAINED["gpt2"].encode_batch(several)  # type: ignore[arg-type]
        streamed = np.concatenate(list(TRAINED["gpt2"].encode_iterable(several)))  # type: ignore[arg-type]
        assert np.array_equal(streamed, TRAINED["gpt2"].encode(several))
    with pytest.raises(DataError, match="expected text as str or bytes, found int"):
        TRAINED["gpt2"].encode(5)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="nowhere: No such file"):
        Tokenizer.train([Path("nowhere")], vocab_size=300)


@settings(max_examples=20)
@given(texts=st.lists(st.text(max_size=200), max_size=5), size=st.integers(257, 300))
def test_training_takes_any_text(texts: list[str], size: int) -> None:
    tokenizer = Tokenizer.train(texts, vocab_size=size)
    assert 257 <= tokenizer.vocab_size <= size
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text, special="allow")) == text
