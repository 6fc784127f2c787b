"""Vocabulary files: what we write opens elsewhere with the same ids; what is damaged or foreign is one clear error."""

import base64
import json
import random
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from pylm.errors import ConfigError, DataError
from pylm.tokenizer import Tokenizer

END = "<|endoftext|>"
SOURCE = (Path(sysconfig.get_path("stdlib")) / "argparse.py").read_text(encoding="utf-8")
# Runs, halves, edges: what patterns and merges decide by looking far, and strings that are nearly special.
PARTS = [
    *" \n\t\r\x85\xa0\u3000aZé語🙂1½'/_.\0",
    *[
        "'s",
        "'LL",
        "\u017f",
        "the",
        "  ",
        "\r\n",
        "a" * 70,
        " " * 70,
        "1" * 20,
        "语言",
        "\u0301",
        "<|end",
        END,
        "<unk>",
    ],
]


def adversarial(seed: int, n_parts: int = 2000) -> str:
    return "".join(random.Random(seed).choices(PARTS, k=n_parts))


TEXTS = [SOURCE, *(adversarial(seed) for seed in range(4))]


def trained(**options: Any) -> Tokenizer:
    return Tokenizer.train([SOURCE, adversarial(9)], **{"vocab_size": 1200, **options})


MADE: dict[str, Callable[[], Tokenizer]] = {
    **{
        f"{pattern}-{ids}": lambda pattern=pattern, ids=ids: trained(pattern=pattern, special_ids=ids)  # type: ignore[misc]
        for pattern in ("gpt2", "cl100k", "llama3", "o200k", "whitespace", r"\p{L}+|[^\p{L}]")
        for ids in ("end", "front")
    },
    "none": lambda: trained(pattern="none", vocab_size=600),
    "byte": Tokenizer.byte,
    "byte-front": lambda: Tokenizer.byte([], "front"),
    "char": lambda: Tokenizer.char([*TEXTS]),
    "char-unk": lambda: Tokenizer.char("abcdé", ["<unk>", END]),
    "chars": lambda: trained(alphabet="chars", pattern="none", vocab_size=400),
    "chars-front": lambda: trained(alphabet="chars", pattern="gpt2", vocab_size=400, special_ids="front"),
    "nearly-special": lambda: trained(special_tokens=[END, "<|end", "a" * 70, "語", "<|endoftext|><|end"]),
}


@pytest.mark.parametrize("made", MADE)
def test_hugging_face_opens_our_file_with_the_same_ids(made: str, tmp_path: Path) -> None:
    tokenizer = MADE[made]()
    tokenizer.save(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab_size() == tokenizer.n_tokens
    for text in TEXTS:
        ids = tokenizer.encode(text, special="allow").tolist()
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        assert theirs.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)
        theirs.encode_special_tokens = True
        plain = theirs.encode(text, add_special_tokens=False).ids
        theirs.encode_special_tokens = False
        assert plain == tokenizer.encode(text, special="text").tolist()


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k"])
def test_tiktoken_opens_our_file_with_the_same_ids(pattern: str, tmp_path: Path) -> None:
    path = tmp_path / "ranks.tiktoken"
    tokenizer = trained(pattern=pattern)
    tokenizer.save_tiktoken(path)
    regex = json.loads(tokenizer._core.to_json())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    ranks = {
        base64.b64decode(token): int(rank) for token, rank in map(str.split, path.read_text().splitlines())
    }
    theirs = tiktoken.Encoding(
        "ours", pat_str=regex, mergeable_ranks=ranks, special_tokens=tokenizer.special_tokens
    )
    again = Tokenizer.from_tiktoken(path, pattern=pattern, special_tokens=tokenizer.special_tokens)
    assert again.merges == tokenizer.merges
    for text in TEXTS:
        ids = tokenizer.encode(text, special="allow").tolist()
        assert theirs.encode(text, allowed_special="all") == ids
        assert again.encode(text, special="allow").tolist() == ids


def test_gpt2_files_give_the_same_ids_in_hugging_face_and_here(tmp_path: Path) -> None:
    tokenizer = trained()
    tokenizer.save_gpt2(tmp_path)
    theirs = tokenizers.ByteLevelBPETokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    again = Tokenizer.load(tmp_path)
    assert again.sha256 == tokenizer.sha256
    for text in TEXTS:
        assert theirs.encode(text).ids == tokenizer.encode(text, special="text").tolist()


# Tables that no training makes: tokens that no merge reaches, parts that rank behind the whole.
RANKS = st.lists(st.text("ab", min_size=2, max_size=6).map(str.encode), max_size=25, unique=True).flatmap(
    lambda tokens: st.permutations([b"a", b"b", *tokens])
)


@settings(max_examples=150, deadline=None)
@given(tokens=RANKS, texts=st.lists(st.text("ab", max_size=40), min_size=1, max_size=4))
def test_any_table_of_ranks_gives_the_ids_of_tiktoken_and_in_hugging_face(
    tokens: list[bytes], texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    others = [bytes([byte]) for byte in range(256) if byte not in b"ab"]
    ranks = {token: rank for rank, token in enumerate([*tokens, *others])}
    theirs = tiktoken.Encoding("random", pat_str=r"[\s\S]+", mergeable_ranks=ranks, special_tokens={})
    folder = tmp_path_factory.mktemp("ranks")
    path = folder / "random.tiktoken"
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    ours = Tokenizer.from_tiktoken(path, pattern="none", special_tokens={})
    ours.save(folder / "tokenizer.json")
    huggingface = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in [*texts, *(token.decode() for token in tokens)]:
        expected = theirs.encode_ordinary(text)
        assert ours.encode(text).tolist() == expected
        assert huggingface.encode(text).ids == expected
    ours.save_tiktoken(folder / "again.tiktoken")
    assert sorted((folder / "again.tiktoken").read_bytes().split()) == sorted(path.read_bytes().split())


def test_a_token_that_merges_do_not_reach_follows_the_rule_of_the_file(tmp_path: Path) -> None:
    """Of "abc" the merges make "ab" and "c"; whether the token "abc" is used is what `ignore_merges` says."""
    vocabulary = json.loads(Tokenizer.byte([])._core.to_json())
    vocabulary["model"]["vocab"] |= {"ab": 256, "abc": 257}
    vocabulary["model"]["merges"] = [["a", "b"]]
    for ignore_merges, ids in [(False, [256, 99]), (True, [257])]:
        vocabulary["model"]["ignore_merges"] = ignore_merges
        path = tmp_path / f"{ignore_merges}.json"
        path.write_text(json.dumps(vocabulary))
        ours = Tokenizer.load(path)
        assert (
            ours.encode("abc").tolist() == ids == tokenizers.Tokenizer.from_file(str(path)).encode("abc").ids
        )
        assert ours.unreached_ids() == [257]
        ours.save(tmp_path / "again.json")
        assert Tokenizer.load(tmp_path / "again.json").encode("abc").tolist() == ids
    # tiktoken would merge "ab" and "c" anywhere; GPT-2's code would never make the token.
    with pytest.raises(ConfigError, match="no merges but the order of its ids, and these have another"):
        ours.save_tiktoken(tmp_path / "ranks.tiktoken")
    vocabulary["pre_tokenizer"]["use_regex"] = True
    path.write_text(json.dumps(vocabulary))
    with pytest.raises(ConfigError, match="1 tokens are reached by no merge"):
        Tokenizer.load(path).save_gpt2(tmp_path)


def test_files_that_would_give_other_ids_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='have GPT-2\'s pattern, and this one is "cl100k"'):
        trained(pattern="cl100k").save_gpt2(tmp_path)
    with pytest.raises(ConfigError, match="these are over characters"):
        Tokenizer.char("ab").save_tiktoken(tmp_path / "x.tiktoken")
    assert not list(tmp_path.iterdir())


def foreign(change: Callable[[dict[str, Any]], Any], tmp_path: Path) -> Path:
    """A tokenizer.json of bytes with one merge, changed."""
    value = json.loads(Tokenizer.byte()._core.to_json())
    value["model"]["vocab"] |= {"ab": 257}
    value["model"]["merges"] = [["a", "b"]]
    change(value)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(value))
    return path


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a normalizer": (lambda v: v.update(normalizer={"type": "NFC"}), "normalizer NFC is not supported"),
    "truncation": (lambda v: v.update(truncation={"max_length": 9}), "truncation is not supported"),
    "padding": (lambda v: v.update(padding={"pad_id": 0}), "padding is not supported"),
    "a template": (
        lambda v: v.update(post_processor={"type": "TemplateProcessing", "single": []}),
        "post_processor TemplateProcessing adds tokens",
    ),
    "a template in a sequence": (
        lambda v: v.update(
            post_processor={
                "type": "Sequence",
                "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing"}],
            }
        ),
        "post_processor TemplateProcessing adds tokens",
    ),
    "another pre-tokenizer": (
        lambda v: v.update(pre_tokenizer={"type": "Metaspace"}),
        "pre_tokenizer Metaspace is not",
    ),
    "a prefix space": (
        lambda v: v["pre_tokenizer"].update(add_prefix_space=True),
        "ByteLevel with add_prefix_space is not supported",
    ),
    "a split that removes": (
        lambda v: v.update(
            pre_tokenizer={"type": "Split", "pattern": {"Regex": " "}, "behavior": "Removed", "invert": False}
        ),
        'behavior "Removed" is not supported',
    ),
    "a split by a string": (
        lambda v: v.update(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"String": " "},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "only a Regex",
    ),
    "a wrong regex": (
        lambda v: v.update(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": "("},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "no regular expression",
    ),
    "another decoder": (
        lambda v: v.update(decoder={"type": "WordPiece"}),
        "decoder WordPiece is not supported",
    ),
    "another model": (
        lambda v: v.update(model={"type": "Unigram", "vocab": []}),
        'model "Unigram" is not supported',
    ),
    "dropout": (lambda v: v["model"].update(dropout=0.1), "model.dropout 0.1 is not supported"),
    "a prefix": (
        lambda v: v["model"].update(continuing_subword_prefix="##"),
        'model.continuing_subword_prefix "##" is not supported',
    ),
    "a suffix": (lambda v: v["model"].update(end_of_word_suffix="</w>"), "model.end_of_word_suffix"),
    "byte fallback": (
        lambda v: v["model"].update(byte_fallback=True),
        "model.byte_fallback is not supported",
    ),
    "an unknown field": (lambda v: v["model"].update(magic=1), "unknown field `magic`"),
    "an unknown version": (lambda v: v.update(version="2.0"), 'version "2.0" is not supported'),
    "stripping": (lambda v: v["added_tokens"][0].update(lstrip=True), '"<|endoftext|>" has lstrip'),
    "single words": (lambda v: v["added_tokens"][0].update(single_word=True), "has single_word"),
    "an added token": (lambda v: v["added_tokens"][0].update(special=False), "is not special"),
    "an added token elsewhere": (
        lambda v: v["added_tokens"][0].update(id=300),
        "has id 300, but by the vocabulary",
    ),
    "two kinds of added tokens": (
        lambda v: v["added_tokens"].append(
            {**v["added_tokens"][0], "id": 258, "content": "<x>", "normalized": True}
        ),
        'differs from "<|endoftext|>" in "normalized"',
    ),
    "a missing byte": (lambda v: v["model"]["vocab"].pop("z"), "byte 0x7a has no token"),
    "no merges field": (lambda v: v["model"].pop("merges"), "missing field `merges`"),
    "an id twice": (lambda v: v["model"]["vocab"].update(ab=97), 'id 97 is given to both "a" and "ab"'),
    "an id too large": (lambda v: v["model"]["vocab"].update(ab=2**31), "id 2147483648 is too large"),
    "an id below 0": (lambda v: v["model"]["vocab"].update(ab=-1), "invalid value: integer `-1`"),
    "an empty token": (lambda v: v["model"]["vocab"].update({"": 300}), "the token of id 300 is empty"),
    "raw characters": (
        lambda v: v["model"]["vocab"].update({"a b": 300}),
        "holds ' ', which stands for no byte",
    ),
    "an unknown part": (lambda v: v["model"]["merges"].append(["a", "zz"]), 'merge 1 needs token "zz"'),
    "an unknown whole": (lambda v: v["model"]["merges"].append(["a", "z"]), 'merge 1 needs token "az"'),
    "a merge twice": (lambda v: v["model"]["merges"].append(["a", "b"]), "merge 1 of .* stands there twice"),
    "a merge of nothing": (lambda v: v["model"]["merges"].append(["", "ab"]), 'needs token ""'),
    "a merge of three": (lambda v: v["model"]["merges"].append(["a", "b", "c"]), "invalid length 3"),
    "a merge of one": (lambda v: v["model"]["merges"].append("ab"), "expected two tokens and a space"),
    "a special token that merges": (
        lambda v: v["model"]["merges"].append(["<|endoftext|", ">"]),
        "is not in the vocabulary",
    ),
    "an unknown unk": (
        lambda v: (v.update(pre_tokenizer=None, decoder=None), v["model"].update(unk_token="<unk>")),
        'unk_token "<unk>" is not in the vocabulary',
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_foreign_file_holds_beyond_us_is_refused_by_name(name: str, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    with pytest.raises(DataError, match=message.replace("|", r"\|").replace("(", r"\(")) as caught:
        Tokenizer.load(foreign(change, tmp_path))
    assert str(caught.value).startswith(str(tmp_path / "tokenizer.json"))
    assert "\n" not in str(caught.value)


HARMLESS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda v: None,
    "a post-processor that adds nothing": lambda v: v.update(post_processor=v["decoder"]),
    "merges as lines": lambda v: v["model"].update(merges=["a b"]),
    "no type": lambda v: v["model"].pop("type"),
    "no optional fields": lambda v: [
        v["model"].pop(name) for name in ("dropout", "unk_token", "ignore_merges")
    ],
    "an unk that is never needed": lambda v: v["model"].update(unk_token=END),
    "a special token outside the vocabulary": lambda v: (
        v["model"]["vocab"].pop(END),
        v["model"]["vocab"].update(ab=256),
        v["added_tokens"][0].update(id=257),
    ),
    "all normalized": lambda v: v["added_tokens"][0].update(normalized=True),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_id_is_taken(name: str, tmp_path: Path) -> None:
    path = foreign(HARMLESS[name], tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    text = f"ab{END} abab"
    assert Tokenizer.load(path).encode(text, special="allow").tolist() == theirs.encode(text).ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a tokenizer.json"),
        (b"{", "not a tokenizer.json"),
        (b"[]", "not a tokenizer.json"),
        (b'{"model": 1}', "not a tokenizer.json"),
        (b"{}", "missing field `model`"),
        (b'\xff{"model": {}}', "not a tokenizer.json"),
        (b'{"model": {"vocab": {"a": 1, "a": 2}, "merges": []}}', "has two ids"),
        (b'{"model": {"vocab": {}, "merges": []}}', "no token is a single character"),
        (b'{"normalizer": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not a tokenizer.json"),
    ],
)
def test_what_is_no_tokenizer_json_is_one_clear_error(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Tokenizer.load(path)


BYTES = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"YWI=", "line 257: expected base 64, a space and a rank"),
        (b"YW 256", "line 257: expected base 64"),
        (b"YWI= x", "line 257: expected base 64"),
        (b"YWI= -1", "line 257: expected base 64"),
        (b"YWI= 99999999999", "line 257: expected base 64"),
        (b"YWI= 4294967295", "line 257: id 4294967295 is too large"),
        (b"YWI= 97", 'line 257: id 97 is given to both "a" and "ab"'),
        (b"YQ== 256", 'line 257: token "a" has two ids'),
        (b" 256", "line 257: the token of id 256 is empty"),
    ],
)
def test_a_damaged_tiktoken_file_names_the_line(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(BYTES + line + b"\n")
    with pytest.raises(DataError, match=message):
        Tokenizer.from_tiktoken(path, pattern="gpt2")


def test_a_tiktoken_file_that_is_not_published_needs_a_pattern(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(BYTES.replace(b"\n", b"\r\n") + b"\r\n")
    with pytest.raises(ConfigError, match="does not say its pattern, and this one is not known"):
        Tokenizer.load(path)
    assert Tokenizer.from_tiktoken(path, pattern="cl100k").encode("hi").tolist() == [104, 105]
    path.write_bytes(BYTES.partition(b"\n")[2])
    with pytest.raises(DataError, match="byte 0x00 has no token"):
        Tokenizer.from_tiktoken(path, pattern="gpt2")


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ({"ab": 256}, "#version: 0.2\na b\na c\n", 'merge 1 needs token "ac"'),
        ({"ab": 256}, "a b\nab\n", "line 2: expected two tokens"),
        ({"ab": 256}, "a b c\n", "line 1: expected two tokens"),
        ({"ab": 97}, "a b\n", "id 97 is given to both"),
        ({"a b": 256}, "", "which stands for no byte"),
    ],
)
def test_damaged_gpt2_files(vocab: dict[str, int], merges: str, message: str, tmp_path: Path) -> None:
    Tokenizer.byte([]).save(tmp_path / "bytes.json")
    known = json.loads((tmp_path / "bytes.json").read_text())["model"]["vocab"]
    (tmp_path / "vocab.json").write_text(json.dumps(known | vocab))
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(DataError, match=message):
        Tokenizer.load(tmp_path / "vocab.json")
    (tmp_path / "merges.txt").write_bytes(b"a \xff\n")
    with pytest.raises(DataError, match="not UTF-8 at byte 2"):
        Tokenizer.load(tmp_path / "vocab.json")


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: expected a vocabulary file.*o200k; found nothing"):
        Tokenizer.load(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match=r"expected one of tokenizer\.json"):
        Tokenizer.load(tmp_path)
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    with pytest.raises(
        DataError, match=r"set TIKTOKEN_CACHE_DIR to a folder that holds o200k_base\.tiktoken"
    ):
        Tokenizer.load("o200k")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(
        DataError, match=r"expected cl100k_base\.tiktoken or 9b5ad71b2ce5302211f9c61530b329a4922fc6a4 in"
    ):
        Tokenizer.load("cl100k")
    (tmp_path / "cl100k_base.tiktoken").write_bytes(BYTES)
    with pytest.raises(DataError, match="not the published file: expected sha256 223921b7"):
        Tokenizer.load("cl100k")
