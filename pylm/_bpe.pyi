"""The Rust core. Text crosses as bytes, arrays as numpy; long calls release the GIL."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

__build_profile__: Final[str]

def split(pattern: str, text: bytes) -> NDArray[np.uint64]:
    """Return the end offset, in bytes, of every pre-token of `text`: shape (n_pretokens,), uint64.

    `pattern` is gpt2, cl100k, llama3, o200k, whitespace, none or a regular expression (Oniguruma's dialect; the
    published expression of a named pattern is that pattern). Pre-tokens partition the text; a byte that is not part
    of valid UTF-8 counts as one character that is neither letter nor number nor white space.

    Raises ConfigError for a pattern that is no regular expression, DataError for a pre-token of more than 64 MiB and
    for an expression that backtracks too much.
    """

def pattern_regex(pattern: str) -> str | None:
    """Return a pattern's regular expression as tokenizer.json holds it; None for `none`. See split."""
