"""A claimed folder is there whole or not at all, and one process at a time makes it."""

from pathlib import Path

import pytest

from pylm.errors import PylmError
from pylm.folders import claimed


def _hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_it_is_put_in_place_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "target"
    with claimed(target) as claim:
        (claim.folder / "file").write_text("content")
        assert not target.exists()
        claim.put_in_place()
    assert (target / "file").read_text() == "content"
    assert _hidden(target.parent) == []


def test_it_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for content in ("old", "new"):
        with claimed(target) as claim:
            (claim.folder / content).touch()
            claim.put_in_place()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert _hidden(tmp_path) == []


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()

    def fail() -> None:
        with claimed(target) as claim:
            (claim.folder / "half").touch()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert list(target.iterdir()) == []
    assert _hidden(tmp_path) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".target.partial" / "folder").mkdir(parents=True)
    (tmp_path / ".target.partial" / "file").touch()
    with claimed(tmp_path / "target") as claim:
        assert list(claim.folder.iterdir()) == []


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    old = tmp_path / ".target.old"
    old.mkdir()
    (old / "precious").touch()
    with claimed(tmp_path / "target"):
        assert (tmp_path / "target" / "precious").exists()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with claimed(target) as claim:
        with pytest.raises(PylmError, match="target: another process is making it"), claimed(target):
            pass
        assert claim.folder.exists(), "the refused one must not clean up after the first"
