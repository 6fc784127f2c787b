"""Files that are either old or new, never half: written beside, flushed to disk, renamed."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pylm.errors import DataError, PylmError


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step; a crash leaves the old file or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; a crash leaves the old file or the new one."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that replaces `path` when it is whole; after an error or a crash the old one is there."""
    partial = path.with_name(f".{path.name}.partial")
    with explained(path):
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object, keys in the order given, in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read a JSON object of ours; `kind` is its expected "format", `version` the newest one we know.

    Raises DataError when it is missing, damaged, of another kind or newer.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: expected a {kind} file, found none") from None
    except ValueError as error:
        raise DataError(f"{path}: damaged: expected JSON, found {error}") from None
    if not isinstance(value, dict) or value.get("format") != kind:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{path}: expected format {kind!r}, found {found!r}")
    found_version = value.get("version")
    if not isinstance(found_version, int) or found_version > version:
        raise DataError(
            f"{path}: written by a newer pylm: {kind} version {found_version!r}, this one reads up to {version}: "
            "update pylm"
        )
    return value


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a hidden sibling folder, then rename it to `path`; after an error or a crash `path` does not exist."""
    partial = path.with_name(f".{path.name}.partial")
    with explained(path):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for child in partial.iterdir():
                sync(child)
            partial.rename(path)
            sync(path.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write `path` (a full disk, a missing right) into one line."""
    try:
        yield
    except OSError as error:
        raise PylmError(f"{path}: cannot be written: {error.strerror or error}") from error
