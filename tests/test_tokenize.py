"""`pylm tokenize`: the documents of every format, the folder as it should be, and one line for whatever goes wrong."""

import gzip
import hashlib
import io
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pylm.dataset import Dataset, Split
from pylm.errors import ConfigError, DataError, PylmError
from pylm.tokenize import Outcome, Settings, tokenize
from pylm.tokenize.report import describe, summary
from pylm.tokenizer import Tokenizer

END = "<|endoftext|>"
DOCUMENTS = ["The first one.\n", " second, with\n\nlines ", "dritter → été", "4"]
WHOLE = Settings(tokenizer="byte", val_fraction=0)


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _write(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def _documents(folder: Path | str, split: Split | None = None) -> list[str]:
    """The documents of a split (training by default), decoded, each checked to end with the end of text."""
    dataset = Dataset.open(folder)
    tokenizer = Tokenizer.load(dataset.path / "tokenizer.json")
    split = split or dataset.train
    documents = []
    for start, end in zip(split.offsets[:-1].tolist(), split.offsets[1:].tolist(), strict=True):
        ids = split.tokens[start:end]
        if dataset.end_of_text_id is not None:
            assert ids[-1] == dataset.end_of_text_id
            ids = ids[:-1]
        documents.append(tokenizer.decode(ids))
    return documents


def _made(*inputs: str, settings: Settings = WHOLE, out: str = "out", **options: Any) -> list[str]:
    """The documents of a dataset made of the inputs without validation."""
    tokenize(inputs, settings, out=Path(out), **options)
    return _documents(out)


# Formats


def test_documents_of_text_stand_between_ends_of_text_untrimmed() -> None:
    assert _made(_write("a.txt", END.join(DOCUMENTS))) == DOCUMENTS


def test_each_file_without_ends_of_text_is_a_document() -> None:
    files = [_write(f"{number}.md", document) for number, document in enumerate(DOCUMENTS)]
    assert _made(*files) == DOCUMENTS
    assert _made(".", out="again") == DOCUMENTS


def test_lines_are_documents_without_their_line_ends() -> None:
    assert _made(
        _write("a.txt", f"one\r\n\n two \n{END}\nlast"),
        settings=Settings("byte", val_fraction=0, format="lines"),
    ) == [
        "one",
        " two ",
        END,
        "last",
    ]


def test_json_lines_give_a_field() -> None:
    records = "".join(json.dumps({"id": 1, "body": document}) + "\n" for document in [*DOCUMENTS, "", END])
    settings = Settings("byte", val_fraction=0, field="body")
    assert _made(_write("a.jsonl", records), settings=settings) == [*DOCUMENTS, END]
    with pytest.raises(
        DataError, match=r"a.jsonl: line 1: expected a field \"text\" \(--field\), found none"
    ):
        tokenize(["a.jsonl"], WHOLE, out=Path("other"))


def test_parquet_gives_a_column() -> None:
    pa = pytest.importorskip("pyarrow", reason="skipped: pyarrow absent")
    import pyarrow.parquet as pq

    documents = [*DOCUMENTS, *(f"document {number}" for number in range(3000))]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        column = pa.array(documents).cast(kind)
        pq.write_table(
            pa.table({"n": range(len(documents)), "text": column}), "a.parquet", row_group_size=700
        )
        assert _made("a.parquet", force=True) == documents
    limited = Settings("byte", val_fraction=0, limit_bytes=len("".join(DOCUMENTS[:2]).encode()) + 12)
    assert _made("a.parquet", settings=limited, out="limited") == [*DOCUMENTS[:2], "dritter → "]

    pq.write_table(pa.table({"text": ["a", None], "n": [1, 2]}), "bad.parquet")
    for field, message in [
        ("text", "bad.parquet: row 2: expected text in column 'text', found null"),
        ("n", "bad.parquet: expected text in column 'n' .--field., found int64"),
        ("body", "bad.parquet: expected a column 'body' .--field., found text, n"),
    ]:
        with pytest.raises(DataError, match=message):
            tokenize(["bad.parquet"], Settings("byte", val_fraction=0, field=field), out=Path("bad"))
    _write("broken.parquet", b"PAR1 this is not one")
    with pytest.raises(
        DataError, match=r"broken.parquet: expected a Parquet file with text in column 'text'"
    ):
        tokenize(["broken.parquet"], WHOLE, out=Path("bad"))


def _zst(content: bytes) -> bytes:
    pa = pytest.importorskip("pyarrow", reason="skipped: pyarrow absent")
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("xz", lzma.compress), ("zst", _zst)])
def test_packed_files_are_read_whole_and_damaged_ones_refused(ending: str, pack: Any) -> None:
    content = END.join(DOCUMENTS).encode()
    packed = pack(content[:20]) + pack(content[20:])  # two members, as pigz and `cat a.gz b.gz` make them
    assert _made(_write(f"a.txt.{ending}", packed)) == DOCUMENTS
    assert Dataset.open("out").info.sources[0].size_bytes == len(packed)
    spoiled = bytearray(packed)
    spoiled[len(packed) // 2] ^= 0x55
    damages = [packed[:-3], b"plainly not packed"]
    if ending != "zst":  # pyarrow writes it without checksums
        damages.append(bytes(spoiled))
    for damaged in damages:
        name = _write(f"bad.txt.{ending}", damaged)
        with pytest.raises(DataError, match=rf"{name}: damaged: expected a whole packed file, found "):
            tokenize([name], WHOLE, out=Path("bad"))
        assert not Path("bad").exists()


def test_stdin_is_stored_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    feed(END.join(DOCUMENTS))
    assert _made("-") == DOCUMENTS
    assert Dataset.open("out").info.sources[0].path == "-"
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "dataset.json",
        "tokenizer.json",
        "train.bin",
        "train.idx.npy",
    ]
    feed(END.join(DOCUMENTS))
    assert tokenize(["-"], WHOLE, out=Path("out")).report is None
    feed("other")
    with pytest.raises(DataError, match="out: exists, and was made when - had"):
        tokenize(["-"], WHOLE, out=Path("out"))
    with pytest.raises(
        ConfigError, match="--out: expected a folder for the dataset when text comes from stdin"
    ):
        tokenize(["-"], WHOLE)
    assert [path for path in Path().iterdir() if path.name.startswith(".")] == []


# Splits and selections


def test_validation_by_documents_by_the_tail_of_its_own_and_none() -> None:
    text = _write("a.txt", "".join(f"line {number}\n" for number in range(1000)))
    by_lines = {"format": "lines", "val_fraction": 0.1}
    tokenize([text], Settings("byte", **by_lines), out=Path("hash"))
    tokenize([text], Settings("byte", val_fraction=0.1), out=Path("tail"))
    val = _write("val.txt", "validation")
    tokenize([text], Settings("byte", val=(val,)), out=Path("given"))
    tokenize([text], WHOLE, out=Path("none"))
    methods = {name: Dataset.open(name).info.split for name in ("hash", "tail", "given", "none")}
    assert methods == {
        "hash": {"method": "hash", "fraction": 0.1, "seed": 0},
        "tail": {"method": "tail", "fraction": 0.1, "seed": None},
        "given": {"method": "given", "fraction": None, "seed": None},
        "none": {"method": "none", "fraction": None, "seed": None},
    }
    hashed = Dataset.open("hash")
    assert hashed.val is not None
    assert sorted(_documents("hash") + _documents("hash", hashed.val)) == sorted(
        Path(text).read_text().splitlines()
    )
    tail = Dataset.open("tail")
    assert tail.val is not None
    assert _documents("tail")[0] + _documents("tail", tail.val)[0] == Path(text).read_text()
    assert tail.val.text_bytes == Path(text).stat().st_size // 10
    given = Dataset.open("given")
    assert given.val is not None
    assert _documents("given", given.val) == ["validation"]
    assert [source.split for source in given.info.sources] == [None, "val"]
    assert Dataset.open("none").val is None


def test_duplicates_and_limits() -> None:
    text = _write("a.txt", END.join([*DOCUMENTS, *DOCUMENTS, "é"]))
    outcome = tokenize([text], Settings("byte", val_fraction=0, dedup=True), out=Path("dedup"))
    assert _documents("dedup") == [*DOCUMENTS, "é"]
    assert outcome.report is not None
    assert outcome.report["n_duplicates"] == 4
    limited = Settings("byte", val_fraction=0, limit_bytes=len(DOCUMENTS[0]) + 1 + len(END) + 4)
    assert _made(text, settings=limited, out="bytes") == [DOCUMENTS[0], " seco"]
    tokenize([text], Settings(vocab_size=300, val_fraction=0), out=Path("trained"))
    given = Settings("trained", val_fraction=0, limit_tokens=20)
    tokenize([text, _write("b.txt", "more " * 100)], given, out=Path("tokens"))
    assert 30 < Dataset.open("tokens").train.n_tokens <= 40
    with pytest.raises(ConfigError, match="--limit-tokens needs a vocabulary that is there before"):
        tokenize([text], Settings("byte", limit_tokens=5), out=Path("none"))


def test_named_special_tokens_are_tokens_in_text_and_text_elsewhere() -> None:
    text = f"a<|user|>b{END}</s>\n"
    special = (END, "<|user|>")
    tokenize([_write("a.txt", text)], Settings("byte", special=special, val_fraction=0), out=Path("text"))
    assert list(Dataset.open("text").train.tokens[:]) == [97, 257, 98, 256, *b"</s>\n", 256]
    lines = Settings("byte", special=special, val_fraction=0, format="lines")
    tokenize(["a.txt"], lines, out=Path("lines"))
    assert list(Dataset.open("lines").train.tokens[:]) == [*text.strip().encode(), 256]
    assert Dataset.open("text").special_ids == {END: 256, "<|user|>": 257}
    tokenize(["a.txt"], Settings("byte", special=(), val_fraction=0), out=Path("bare"))
    bare = Dataset.open("bare")
    assert (bare.vocab_size, bare.end_of_text_id) == (256, None)
    assert bytes(bare.train.tokens[:].astype(np.uint8)) == b"a<|user|>b</s>\n"


def test_a_large_vocabulary_is_stored_wide() -> None:
    characters = "".join(map(chr, [*range(32, 0xD800), *range(0xE000, 0x12000)]))
    tokenize([_write("a.txt", characters)], Settings("char", val_fraction=0), out=Path("wide"))
    dataset = Dataset.open("wide")
    assert (dataset.dtype, dataset.vocab_size) == (np.uint32, len(characters) + 1)
    assert _documents("wide") == [characters]


# The whole folder


def test_ids_are_those_of_tokenizers_and_the_same_with_any_threads(real_text: bytes) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="skipped: tokenizers absent")
    Path("a.txt").write_bytes(real_text)
    settings = Settings(vocab_size=1000, val_fraction=0.05)
    for jobs in (1, 2, 3):
        tokenize(["a.txt"], settings, out=Path(f"jobs{jobs}"), jobs=jobs)
    for path in Path("jobs1").iterdir():
        assert (
            path.read_bytes()
            == (Path("jobs2") / path.name).read_bytes()
            == (Path("jobs3") / path.name).read_bytes()
        )
    theirs = tokenizers.Tokenizer.from_file("jobs1/tokenizer.json")
    dataset = Dataset.open("jobs1")
    assert dataset.val is not None
    expected = theirs.encode(real_text[: dataset.train.text_bytes].decode()).ids
    assert list(dataset.train.tokens[:-1]) == expected
    assert dataset.train.text_bytes + dataset.val.text_bytes == len(real_text)


def _state(folder: str) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path(folder).iterdir()}


def test_a_second_run_changes_nothing_and_says_so() -> None:
    text = _write("a.txt", "some text " * 100)
    first = tokenize([text], Settings(vocab_size=270), out=Path("out"))
    before = _state("out")
    second = tokenize([text], Settings(vocab_size=270), out=Path("out"))
    assert first.report is not None
    assert second.report is None
    assert second.info == first.info
    assert _state("out") == before
    assert "nothing to do" in describe(summary(second, 0.1))[0]
    forced = tokenize([text], Settings(vocab_size=270), out=Path("out"), force=True)
    assert forced.report is not None
    assert {name: content for name, (_, content) in _state("out").items()} == {
        name: content for name, (_, content) in before.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: Settings(vocab_size=271), "was made with --vocab-size 270, now it is 271"),
        (lambda: Settings(vocab_size=270, dedup=True), "was made with --dedup False, now it is True"),
        (lambda: Settings("byte"), "was made with --"),
        (
            lambda: _write("a.txt", "other bytes" * 20) and None,
            "was made when a.txt had 1,000 bytes, now it has 220",
        ),
        (lambda: _write("a.txt", "SOME TEXT " * 100) and None, "was made of another content of a.txt"),
        (lambda: Path("out/train.bin").write_bytes(b"ab") and None, "is damaged: train.bin"),
        (lambda: Path("out/tokenizer.json").unlink(), "is damaged: tokenizer.json"),
    ],
)
def test_another_input_or_setting_needs_force_and_says_what_differs(change: Any, message: str) -> None:
    text = _write("a.txt", "some text " * 100)
    tokenize([text], Settings(vocab_size=270), out=Path("out"))
    settings = change() or Settings(vocab_size=270)
    with pytest.raises(
        DataError, match=f"out: exists, and {message}.*: --force makes it anew, --out names another"
    ):
        tokenize([text], settings, out=Path("out"))
    assert tokenize([text], settings, out=Path("out"), force=True).report is not None
    assert tokenize([text], settings, out=Path("out")).report is None


def test_what_is_no_dataset_is_never_replaced() -> None:
    text = _write("a.txt", "text " * 100)
    Path("out").mkdir()
    _write("out/precious", "")
    for force in (False, True):
        with pytest.raises(DataError, match="out: expected a dataset or nothing, found something else"):
            tokenize([text], WHOLE, out=Path("out"), force=force)
    assert Path("out/precious").exists()


def test_a_given_tokenizer_is_known_by_its_content() -> None:
    text = _write("a.txt", "text " * 100)
    Tokenizer.train([text], vocab_size=260).save("t.json")
    given = Settings("t.json", val_fraction=0)
    first = tokenize([text], given, out=Path("out"))
    Path("t.json").rename("moved.json")
    assert tokenize([text], Settings("moved.json", val_fraction=0), out=Path("out")).report is None
    assert first.info.tokenizer_sha256 == Tokenizer.load("moved.json").sha256
    Tokenizer.train(["other"], vocab_size=258).save("t.json")
    with pytest.raises(DataError, match="was made with another tokenizer"):
        tokenize([text], given, out=Path("out"))


def test_words_are_kept_beside_the_tokenizer_and_only_save_time(real_text: bytes) -> None:
    Path("text").write_bytes(real_text)
    Path("other").write_bytes(real_text[len(real_text) // 2 :])
    first = tokenize(["text"], Settings(vocab_size=400), jobs=2).dataset
    words = first / "tokenizer.words"
    assert words.stat().st_size > 10_000
    tokenizer_sha256 = hashlib.sha256((first / "tokenizer.json").read_bytes()).digest()
    assert words.read_bytes()[:48] == b"pylm words 2\n\0\0\0" + tokenizer_sha256

    def ids(out: str, tokenizer: Path) -> bytes:
        made = tokenize(["other"], Settings(tokenizer=str(tokenizer)), out=Path(out), force=True).dataset
        return (made / "train.bin").read_bytes()

    expected = ids("with", first)
    # A table of words met may drop one for another.
    assert (Path("with") / "tokenizer.words").stat().st_size > 0.9 * words.stat().st_size
    assert ids("chained", Path("with/tokenizer.json")) == expected
    assert Path("chained/tokenizer.words").samefile("with/tokenizer.words"), "nothing new was met"
    damaged = bytearray(words.read_bytes())
    damaged[5_000] ^= 1
    words.write_bytes(damaged)
    assert ids("damaged", first) == expected
    words.unlink()
    assert ids("without", first) == expected
    # It is no part of the dataset: made already, with it or without.
    assert tokenize(["text"], Settings(vocab_size=400)).report is None


def test_the_report_has_what_was_done() -> None:
    text = _write("a.txt", "".join(f"line {number} of one document\n" for number in range(1500)) + END + END)
    outcome = tokenize([text], Settings(vocab_size=300), out=Path("out"))
    content = summary(outcome, 1.0)
    assert json.loads(json.dumps(content)) == content
    assert (content["n_documents"], content["n_empty"], content["n_merges"]) == (1, 1, 300 - 257)
    assert set(content["seconds"]) == {"total", "reading", "counting", "merging", "encoding"}
    assert content["longest_token"]["text"].encode().hex() == content["longest_token"]["hex"]
    assert content["peak_memory_bytes"] > 1e6
    for split in content["splits"].values():
        assert split["bytes_per_token"] == split["text_bytes"] / split["n_tokens"]
    lines = describe(content)
    assert lines[-1] == "one document; if each line is a sample, use --format lines"
    assert any("1 empty dropped" in line for line in lines)


def test_training_that_runs_out_of_pairs_says_so() -> None:
    outcome = tokenize(
        [_write("a.txt", "abababab " * 50)], Settings(vocab_size=1000, val_fraction=0), out=Path("out")
    )
    assert outcome.info.vocab_size < 300
    assert any("no pair was left to merge" in line for line in describe(summary(outcome, 1.0)))


# Errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 256}, r"--vocab-size 256: expected at least 257 \(256 bytes and 1 special token\)"),
        (
            {"vocab_size": 100, "special": (END, "<a>")},
            r"expected at least 258 \(256 bytes and 2 special tokens\)",
        ),
        ({"val_fraction": 1.0}, "--val-fraction 1.0: expected a share from 0 to below 1"),
        (
            {"special": (), "special_ids": "front"},
            "--special none: expected special tokens with --special-ids front",
        ),
        ({"tokenizer": "byte", "vocab_size": 300}, "--vocab-size: expected only with --tokenizer bpe"),
        ({"tokenizer": "char", "pattern": "o200k"}, "--pattern: expected only with --tokenizer bpe"),
        ({"val": ("a.txt",), "split": "tail"}, "--split tail: expected no split with --val"),
        ({"special": ("<x>",)}, "no special token ends a document: expected <|endoftext|> or </s>"),
        ({"end_of_text": "<x>"}, "--end-of-text <x>: expected one of the special tokens"),
        ({"pattern": "("}, "pattern"),
        ({"val_fraction": 0.001}, "--val-fraction 0.001 of 9 bytes of text leaves one side without text"),
        ({"split": "hash"}, "--split hash gives 0 of 1 documents to validation"),
    ],
)
def test_settings_that_cannot_be_are_one_line(settings: dict[str, Any], message: str) -> None:
    text = _write("a.txt", "some text")
    with pytest.raises(ConfigError, match=message.replace("<|", r"<\|").replace("|>", r"\|>")) as caught:
        tokenize([text], Settings(**settings), out=Path("out"))
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (b"", Settings(), "a.txt: expected text, found only empty documents"),
        (END.encode() * 3, Settings(), "a.txt: expected text, found only empty documents"),
        (b"caf\xe9", Settings("char", val_fraction=0), "a.txt: document 1: expected UTF-8.*at byte 3"),
        (b"abc" * 50 + b"d", Settings("char"), "a.txt: document 1: character .d. has no token.*at byte 150"),
    ],
)
def test_texts_that_cannot_be_are_one_line(content: bytes, settings: Settings, message: str) -> None:
    Path("a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        tokenize(["a.txt"], settings, out=Path("out"))
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


def test_missing_inputs_and_tokenizers() -> None:
    with pytest.raises(DataError, match=r"none.txt: expected a file, a folder or a glob, found none"):
        tokenize(["none.txt"], Settings())
    text = _write("a.txt", "text")
    with pytest.raises(PylmError, match=r"none.json"):
        tokenize([text], Settings("none.json"))


def test_the_folder_is_named_after_the_first_input() -> None:
    Path("books").mkdir()
    _write("books/one.txt", "text " * 100)
    _write("two.txt.gz", gzip.compress(b"text " * 100))
    assert _place(tokenize(["books", "two.txt.gz"], WHOLE)) == "data/books"
    assert _place(tokenize(["two.txt.gz", "books"], WHOLE)) == "data/two"


def _place(outcome: Outcome) -> str:
    return str(outcome.dataset)
