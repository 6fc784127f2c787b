"""`pylm tokenizer`: each subcommand on a small text, as a user types it."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import tokenizers
from click.testing import CliRunner, Result

from pylm.cli.main import cli
from pylm.errors import ConfigError, DataError
from pylm.tokenizer import Tokenizer

END = "<|endoftext|>"
STORY = "Once upon a time there was a tokenizer. It knew 日本語, and it was fast.\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "stories.txt"
    path.write_text(END.join(f"{STORY}Story {number} ends.\n" for number in range(40)))
    return path


@pytest.fixture
def vocabulary(text: Path, tmp_path: Path) -> Path:
    Tokenizer.train([text], vocab_size=320).save(tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


def pylm(*arguments: Any, stdin: str | bytes = b"") -> Result:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], stdin, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_train_writes_what_the_same_settings_make_in_python(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.json"
    result = pylm(
        "tokenizer", "train", text, "--out", out, "--vocab-size", 300, "--pattern", "cl100k", "--jobs", 2
    )
    expected = Tokenizer.train([text], vocab_size=300, pattern="cl100k")
    assert Tokenizer.load(out).sha256 == expected.sha256
    assert "40 documents" in result.stdout
    assert "300 ids, 43 merges" in result.stdout


@pytest.mark.parametrize(
    ("options", "vocab_size"),
    [
        (["--tokenizer", "byte"], 257),
        (["--tokenizer", "char", "--special", "none"], len(set(STORY + "Story 0123456789"))),
        (["--vocab-size", "280", "--special-ids", "front"], 280),
        (["--vocab-size", "60", "--alphabet", "chars", "--pattern", "none"], 60),
    ],
)
def test_train_takes_what_tokenize_takes(
    options: list[str], vocab_size: int, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made.json"
    content = json.loads(pylm("tokenizer", "train", text, "--out", out, "--json", *options).stdout)
    assert content["vocab_size"] == vocab_size
    assert content["sha256"] == Tokenizer.load(out).sha256


def test_train_reads_stdin(tmp_path: Path) -> None:
    pylm("tokenizer", "train", "-", "--out", tmp_path / "made.json", "--vocab-size", 270, stdin=STORY)
    assert Tokenizer.load(tmp_path / "made.json").n_merges == 13


def test_encode_and_decode_are_inverse(vocabulary: Path, tmp_path: Path) -> None:
    path = tmp_path / "any.txt"
    path.write_bytes(b"Once \xff\0 \xe6\x97 upon " + STORY.encode() * 3000)
    for arguments, stdin in [([path], b""), (["-"], path.read_bytes())]:
        ids = pylm("tokenizer", "encode", *arguments, "--tokenizer", vocabulary, stdin=stdin).stdout
        assert [int(number) for number in ids.split()] == Tokenizer.load(vocabulary).encode(
            path.read_bytes()
        ).tolist()
        assert ids.count("\n") == 1
        assert (
            pylm("tokenizer", "decode", "--tokenizer", vocabulary, stdin=ids).stdout_bytes
            == path.read_bytes()
        )
    pylm("tokenizer", "encode", path, "--tokenizer", vocabulary, "--out", tmp_path / "ids.bin")
    assert np.fromfile(tmp_path / "ids.bin", "<u2").tolist() == [int(number) for number in ids.split()]
    decoded = pylm("tokenizer", "decode", tmp_path / "ids.bin", "--tokenizer", vocabulary)
    assert decoded.stdout_bytes == path.read_bytes()


def test_encode_shows_tokens_and_counts(vocabulary: Path) -> None:
    shown = pylm(
        "tokenizer", "encode", "--tokenizer", vocabulary, "--show", "tokens", stdin=" it was\n"
    ).stdout
    assert "".join(json.loads(line.split("\t")[1]) for line in shown.splitlines()) == " it was\n"
    count = pylm(
        "tokenizer", "encode", "--tokenizer", vocabulary, "--show", "count", stdin=" it was\n"
    ).stdout
    assert int(count) == len(shown.splitlines())


def test_encode_refuses_special_tokens_unless_told(vocabulary: Path) -> None:
    with pytest.raises(DataError, match="special token"):
        pylm("tokenizer", "encode", "--tokenizer", vocabulary, stdin=END)
    allowed = pylm("tokenizer", "encode", "--tokenizer", vocabulary, "--special-tokens", "allow", stdin=END)
    assert allowed.stdout == "319\n"


def test_decode_says_what_is_no_id(vocabulary: Path, tmp_path: Path) -> None:
    for stdin, message in [
        ("1 x", "expected ids as whole numbers"),
        ("99999", "id 99999 is not"),
        ("9" * 30, "ids as"),
    ]:
        with pytest.raises(DataError, match=message):
            pylm("tokenizer", "decode", "--tokenizer", vocabulary, stdin=stdin)
    (tmp_path / "odd.bin").write_bytes(b"\0\0\0")
    with pytest.raises(DataError, match="half an id at the end"):
        pylm("tokenizer", "decode", tmp_path / "odd.bin", "--tokenizer", vocabulary)
    assert pylm("tokenizer", "decode", "--tokenizer", vocabulary, stdin="[104, 105]").stdout == "hi"


def test_inspect_tells_what_the_file_holds(vocabulary: Path) -> None:
    facts = json.loads(pylm("tokenizer", "inspect", vocabulary, "--json").stdout)
    tokenizer = Tokenizer.load(vocabulary)
    assert facts["vocab_size"] == 320
    assert facts["special_tokens"] == {END: 319}
    assert facts["sha256"] == tokenizer.sha256
    assert facts["unreached"] == 0
    lengths = [token["n_bytes"] for token in facts["longest"]]
    assert lengths == sorted(tokenizer.token_lengths().tolist(), reverse=True)[:10]
    shown = pylm("tokenizer", "inspect", vocabulary).stdout
    assert "320 (uint16), 320 of them tokens" in shown
    assert f"{END} 319" in shown


def test_inspect_tells_how_a_token_is_made(vocabulary: Path) -> None:
    left, right = Tokenizer.load(vocabulary).merges[5]
    arguments = ["--id", 261, "--token", END, "--token", "a", "--json"]
    merged, special, byte = json.loads(pylm("tokenizer", "inspect", vocabulary, *arguments).stdout)
    assert (merged["rank"], bytes.fromhex(merged["hex"])) == (5, left + right)
    assert [Tokenizer.load(vocabulary).token_bytes(part) for part in merged["parts"]] == [left, right]
    assert (special["id"], special["special"]) == (319, True)
    assert (byte["id"], byte["rank"]) == (97, None)
    with pytest.raises(DataError, match="'tokenizer!' is not one token: it is encoded as"):
        pylm("tokenizer", "inspect", vocabulary, "--token", "tokenizer!")


def test_stats_cross_tokenizers_with_texts(vocabulary: Path, text: Path, tmp_path: Path) -> None:
    Tokenizer.byte().save(tmp_path / "byte.json")
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"text": f"line {number}"}) + "\n" for number in range(5)))
    arguments = ["--tokenizer", vocabulary, "--tokenizer", tmp_path / "byte.json", "--documents", 7]
    fits = json.loads(pylm("tokenizer", "stats", text, lines, *arguments, "--json").stdout)
    assert [(Path(one["text"]).name, Path(one["tokenizer"]).name) for one in fits] == [
        ("stories.txt", "tokenizer.json"),
        ("stories.txt", "byte.json"),
        ("lines.jsonl", "tokenizer.json"),
        ("lines.jsonl", "byte.json"),
    ]
    assert [(one["n_documents"], one["n_sampled"]) for one in fits] == [(40, 7), (40, 7), (5, 5), (5, 5)]
    assert [one["bytes_per_token"] for one in fits[1::2]] == [1.0, 1.0]
    assert fits[0]["bytes_per_token"] > 1.5
    assert fits[2]["sampled_bytes"] == 5 * len("line 0")
    for one in fits:
        assert one["hours_for_825_gb"] == pytest.approx(825e3 / one["mb_per_s"] / 3600)
    shown = pylm("tokenizer", "stats", text, *arguments).stdout
    assert shown.count("bytes per token (7 of 40 documents)") == 2


def test_stats_sample_by_the_seed_and_read_within_the_limit(vocabulary: Path, text: Path) -> None:
    def sampled_bytes(*options: Any) -> int:
        arguments = [
            "tokenizer",
            "stats",
            text,
            "--tokenizer",
            vocabulary,
            "--documents",
            3,
            "--json",
            *options,
        ]
        return int(json.loads(pylm(*arguments).stdout)[0]["encoded_bytes"])

    assert sampled_bytes() == len(text.read_bytes()) - 39 * len(END)
    assert sampled_bytes("--limit-bytes", 500) <= 500


def test_convert_writes_the_three_formats(vocabulary: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(vocabulary)
    result = pylm("tokenizer", "convert", vocabulary, "--to", "tiktoken", "--out", tmp_path / "x.tiktoken")
    assert "not in the file: pattern gpt2" in result.stderr
    pylm("tokenizer", "convert", vocabulary, "--to", "gpt2", "--out", tmp_path / "gpt2")
    assert Tokenizer.load(tmp_path / "gpt2").sha256 == tokenizer.sha256
    front = tmp_path / "front.json"
    Tokenizer.train([STORY], vocab_size=300, special_ids="front").save(front)
    result = pylm("tokenizer", "convert", front, "--to", "gpt2", "--out", tmp_path / "front")
    assert 'not in the files: that these tokens are special: {"<unk>": 0' in result.stderr
    arguments = ["--pattern", "gpt2", "--special", f"{END}=319"]
    back = tmp_path / "back.json"
    pylm("tokenizer", "convert", tmp_path / "x.tiktoken", "--to", "hf", "--out", back, *arguments)
    ids = tokenizer.encode(STORY + END, special="allow").tolist()
    assert tokenizers.Tokenizer.from_file(str(back)).encode(STORY + END).ids == ids
    with pytest.raises(ConfigError, match="does not say its pattern"):
        pylm("tokenizer", "convert", tmp_path / "x.tiktoken", "--to", "hf", "--out", back)
    with pytest.raises(click.UsageError, match="expected TOKEN=ID"):
        CliRunner().invoke(
            cli,
            ["tokenizer", "convert", "x.tiktoken", "--to", "hf", "--out", "y", "--special", "x"],
            standalone_mode=False,
            catch_exceptions=False,
        )
