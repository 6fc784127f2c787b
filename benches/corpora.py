"""The texts that benchmarks read: those of ../shared/data (or $PYLM_SHARED) joined, and the Python installed here."""

import lzma
import os
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "bench"
CODE_BYTES = 100_000_000


def corpus_file(name: str) -> Path | None:
    """The corpus in one file under build/, made on first use; None, and a line, when its sources are absent."""
    path = BUILD / f"{name}.txt"
    if path.exists():
        return path
    if name == "code":
        parts = _installed_python()
    else:
        folder = shared() / "data" / name
        if not folder.is_dir():
            print(f"{name}: skipped, {folder} is absent")
            return None
        parts = [_unpacked(file) for file in sorted(folder.iterdir())]
    # Some tokenizers take this string for the end of a document, others for text.
    BUILD.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(parts).replace(b"<|endoftext|>", b""))
    return path


def _installed_python() -> list[bytes]:
    """Python's standard library, then what is installed beside pylm, as far as it is UTF-8, up to CODE_BYTES."""
    parts: list[bytes] = []
    size = 0
    for place in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for file in sorted(Path(place).rglob("*.py")):
            source = file.read_bytes()
            if size < CODE_BYTES and _is_text(source):
                parts.append(source)
                size += len(source)
    return parts


def _is_text(source: bytes) -> bool:
    try:
        source.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unpacked(file: Path) -> bytes:
    return lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()


def shared() -> Path:
    """Where the project's corpora and vocabularies are, if they are."""
    return Path(os.environ.get("PYLM_SHARED", ROOT.parent / "shared"))
