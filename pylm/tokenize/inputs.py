"""What a job reads: files found, stdin stored, the vocabulary opened if one is given."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pylm.corpus import STDIN, InputFile, find_inputs
from pylm.errors import ConfigError
from pylm.files import explained
from pylm.tokenize.settings import Settings

if TYPE_CHECKING:
    from pylm.tokenizer import Tokenizer

MADE_HERE = ("bpe", "byte", "char")

WORDS_FILE = "tokenizer.words"  # what the core keeps beside the tokenizer.json of a dataset


@dataclass(frozen=True)
class Inputs:
    """The inputs of a job, the last `n_val_files` of them validation text; `names` is how they are recorded."""

    files: tuple[InputFile, ...]
    n_val_files: int
    names: tuple[str, ...]
    given: "Tokenizer | None"

    @classmethod
    def find(cls, inputs: Sequence[str], settings: Settings) -> Self:
        """Find what the arguments mean. Raises DataError and ConfigError."""
        files = find_inputs(inputs, settings.format)
        val_files = find_inputs(settings.val, settings.format)
        if any(file.path == Path(STDIN) for file in val_files):
            raise ConfigError("--val -: expected files; only the training text can come from stdin")
        names = [str(file.path) for file in (*files, *val_files)]
        return cls((*files, *val_files), len(val_files), tuple(names), _given_tokenizer(settings))

    @property
    def reads_stdin(self) -> bool:
        """Whether text comes from stdin, and was not stored yet."""
        return any(file.path == Path(STDIN) for file in self.files)

    def with_stdin_in(self, spool: Path) -> Self:
        """Store stdin in a file, which can be read more than once, and read that."""
        with explained(spool), spool.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        files = (replace(file, path=spool) if file.path == Path(STDIN) else file for file in self.files)
        return replace(self, files=tuple(files))

    def words(self, settings: Settings) -> Path | None:
        """The words that were encoded before, where the given vocabulary is a dataset's; they only save time."""
        path = Path(settings.tokenizer)
        words = (path if path.is_dir() else path.parent) / WORDS_FILE
        return words if self.given is not None and words.is_file() else None

    def is_val(self, index: int) -> bool:
        """Whether an input is validation text as a whole."""
        return index >= len(self.files) - self.n_val_files


def _given_tokenizer(settings: Settings) -> "Tokenizer | None":
    if settings.tokenizer in MADE_HERE:
        return None
    from pylm.tokenizer import Tokenizer  # numpy, which a vocabulary made here does not need

    if settings.tokenizer.endswith(".tiktoken") and settings.pattern != "gpt2":
        return Tokenizer.from_tiktoken(settings.tokenizer, pattern=settings.pattern)
    return Tokenizer.load(settings.tokenizer)
