"""Arguments become input files: folders, globs, endings, packings."""

import os
from pathlib import Path

import pytest

from pylm.corpus import InputFile, find_inputs, stem
from pylm.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = [
        "b.txt",
        "a.md",
        "sub/c.jsonl.gz",
        "sub/d.parquet",
        "z.txt.zst",
        "code.py",
        ".hidden.txt",
        ".git/x.txt",
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_means_its_texts_sorted_without_hidden_ones(folder: Path) -> None:
    found = find_inputs(["."])
    assert found == [
        InputFile(Path("a.md"), "text", "none"),
        InputFile(Path("b.txt"), "text", "none"),
        InputFile(Path("sub/c.jsonl.gz"), "jsonl", "gz"),
        InputFile(Path("sub/d.parquet"), "parquet", "none"),
        InputFile(Path("z.txt.zst"), "text", "zst"),
    ]
    assert [file.path for file in find_inputs([str(folder)])] == [folder / file.path for file in found]


def test_globs_are_sorted_and_find_other_files(folder: Path) -> None:
    assert find_inputs(["*.py"]) == [InputFile(Path("code.py"), "text", "none")]
    assert [str(file.path) for file in find_inputs(["**/*.[jt]*"])] == [
        "b.txt",
        "sub/c.jsonl.gz",
        "z.txt.zst",
    ]
    assert [file.path.name for file in find_inputs([f"{folder}/*.txt"])] == ["b.txt"]


def test_arguments_keep_their_order_and_a_format_overrides_endings(folder: Path) -> None:
    found = find_inputs(["z.txt.zst", "a.md", "-"], "lines")
    assert [str(file.path) for file in found] == ["z.txt.zst", "a.md", "-"]
    assert {file.format for file in found} == {"lines"}


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    (folder / "what[1].txt").touch()
    assert find_inputs(["what[1].txt"]) == [InputFile(Path("what[1].txt"), "text", "none")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "none.txt: expected a file, a folder or a glob, found none of that name"),
        (["*.csv"], r"\*.csv: expected files of this glob, found none"),
        (["sub/empty"], "sub/empty: expected files ending in .txt, .md, .jsonl, .parquet"),
        (["b.txt", "./sub/../b.txt"], "expected each input once"),
        (["sub", "sub/d.parquet"], "expected each input once"),
        (["d.parquet.gz"], "expected Parquet, which packs by itself, found it packed as .gz"),
        (["pipe"], "expected a file or a folder, found something else; pipe it in as -"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "sub/empty").mkdir()
    (folder / "d.parquet.gz").touch()
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match=message):
        find_inputs(arguments)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("corpus.txt", "corpus"),
        ("a/b.jsonl.gz", "b"),
        ("x.tar.xz", "x"),
        ("plain", "plain"),
        ("v1.2.txt", "v1.2"),
    ],
)
def test_a_dataset_is_named_after_the_stem(name: str, expected: str) -> None:
    assert stem(Path(name)) == expected
