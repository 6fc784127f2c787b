"""A folder that one process at a time makes: filled beside its place, locked, and put there when it is whole."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pylm.errors import PylmError
from pylm.files import explained, sync


class Claim:
    """The right to make `target`: fill `folder`, an empty hidden sibling, then call `put_in_place`."""

    def __init__(self, target: Path, folder: Path) -> None:
        self.target, self.folder, self.is_done = target, folder, False

    def put_in_place(self) -> None:
        """Make `folder` be `target`, instead of what is there; a kill in between leaves the old one or the new one."""
        old = _old(self.target)
        with explained(self.target):
            for child in self.folder.iterdir():
                sync(child)
            if self.target.exists():
                shutil.rmtree(old, ignore_errors=True)
                self.target.rename(old)
            self.folder.rename(self.target)
            self.is_done = True
            sync(self.target.parent)
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def claimed(target: Path) -> Iterator[Claim]:
    """Claim `target`. What a killed process left half-made is removed; after an error nothing new is left.

    Raises PylmError while another process makes the same folder, or when it cannot be written.
    """
    folder = target.with_name(f".{target.name}.partial")
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(target, folder)
    claim = Claim(target, folder)
    try:
        with explained(target):
            _clear(folder)
            _finish_replacement(target)
        yield claim
    finally:
        if not claim.is_done:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(target: Path, folder: Path) -> int:
    """Lock the folder itself, which the system frees when the process dies; no lock file is ever left."""
    while True:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise PylmError(
                f"{target}: another process is making it: wait for that, or name another folder"
            ) from None
        try:
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its last owner finished and renamed it between our two calls: take a new one


def _clear(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()


def _finish_replacement(target: Path) -> None:
    """Undo or complete a replacement that was killed between its two renames."""
    old = _old(target)
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
