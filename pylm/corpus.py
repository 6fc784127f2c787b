"""Arguments of a command to input files: folders, globs, endings, packings."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pylm.errors import ConfigError, DataError

STDIN = "-"
FORMATS = ("text", "lines", "jsonl", "parquet")
PACKINGS = {".gz": "gz", ".zst": "zst", ".xz": "xz"}
FORMAT_OF_ENDING = {".txt": "text", ".md": "text", ".jsonl": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True)
class InputFile:
    """A file to read: `format` is one of FORMATS, `packing` none, gz, zst or xz."""

    path: Path
    format: str
    packing: str


def find_inputs(arguments: Iterable[str], format_name: str = "auto") -> list[InputFile]:
    """The files that arguments mean, in the order of the arguments, those of a folder or a glob sorted by path.

    A folder means its .txt, .md, .jsonl and .parquet files, packed ones too, hidden ones left out; other files are
    named by a glob. `-` stays as it is. `format_name` auto goes by the ending under a packing's ending.

    Raises DataError for what is missing, empty or named twice.
    """
    paths = [path for argument in arguments for path in _paths(argument)]
    seen: dict[Path, Path] = {}
    for path in paths:
        if (same := seen.setdefault(path.resolve(), path)) is not path:
            raise DataError(f"{path}: expected each input once, found it also as {same}")
    return [_input_file(path, format_name) for path in paths]


def stem(path: Path) -> str:
    """The name of a file without the endings of its packing and format: corpus.txt.gz is corpus."""
    name = path.name
    if path.suffix in PACKINGS:
        name = name.removesuffix(path.suffix)
    return Path(name).stem


def _input_file(path: Path, format_name: str) -> InputFile:
    packing = PACKINGS.get(path.suffix, "none")
    ending = path.suffix if packing == "none" else path.with_suffix("").suffix
    chosen = FORMAT_OF_ENDING.get(ending, "text") if format_name == "auto" else format_name
    if chosen not in FORMATS:
        raise ConfigError(f"--format {format_name}: expected auto, {', '.join(FORMATS)}")
    if chosen == "parquet" and packing != "none":
        raise DataError(
            f"{path}: expected Parquet, which packs by itself, found it packed as {path.suffix}: unpack it"
        )
    return InputFile(path, chosen, packing)


def _paths(argument: str) -> Iterator[Path]:
    path = Path(argument)
    if argument == STDIN or path.is_file():
        yield path
    elif path.is_dir():
        found = sorted(_files_of(path))
        if not found:
            endings = ", ".join(FORMAT_OF_ENDING)
            raise DataError(
                f"{path}: expected files ending in {endings} (also packed), found none; name others by a quoted glob"
            )
        yield from found
    elif path.exists():
        raise DataError(f"{path}: expected a file or a folder, found something else; pipe it in as -")
    elif glob.has_magic(argument):
        found = sorted(match for match in map(Path, glob.glob(argument, recursive=True)) if match.is_file())  # noqa: PTH207 (Path.glob takes no absolute pattern)
        if not found:
            raise DataError(f"{argument}: expected files of this glob, found none")
        yield from found
    else:
        raise DataError(f"{path}: expected a file, a folder or a glob, found none of that name")


def _files_of(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            ending = path.with_suffix("").suffix if path.suffix in PACKINGS else path.suffix
            if ending in FORMAT_OF_ENDING and not name.startswith(".") and path.is_file():
                yield path
