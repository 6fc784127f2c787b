"""The Rust core. Text crosses as bytes, arrays as numpy; long calls release the GIL."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Final, TypeAlias, final

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

def has_fast_kernels() -> bool:
    """Whether the functions below are the fast way on this processor."""

def adopt_threads(library: PathLike[str]) -> bool:
    """Let them take the threads of GNU's OpenMP at this path, if the process has loaded it; return whether they do."""

def adopt_products(library: PathLike[str]) -> bool:
    """Let run_block multiply by the MKL in the library at this path, if the process has loaded it; return whether."""

def losses_of_rows(
    logits: NDArray[np.float32] | NDArray[np.uint16],
    n_ids: int,
    bias: NDArray[np.float32] | None,
    targets: NDArray[np.int64],
    gradient: bool,
    threads: int,
) -> NDArray[np.float32]:
    """Return -ln softmax(logits + bias) at each row's target: (R,), float32; 0 where the target is -1.

    `logits` (R, W), contiguous, of which `n_ids` columns count, is float32 or the bits of bfloat16, and is overwritten:
    with `gradient` by the gradients of the losses' sum, 0 in the other columns. `bias` (n_ids,), `targets` (R,).

    Raises ConfigError for lengths that do not fit and for a target that is no column.
    """

# Heads of queries, of keys; the norm and its epsilon; angles.
_Heads: TypeAlias = tuple[int, int, str, float, NDArray[np.float32] | None]

def mix_heads(
    projected: NDArray[np.float32] | NDArray[np.uint16],
    mixed: NDArray[np.float32] | NDArray[np.uint16],
    heads: _Heads,
    threads: int,
) -> None:
    """Fill `mixed` (B, T, H x d) with softmax(q k / sqrt(d)) v over each position and those before it.

    `projected` (B, T, (H + 2 K) x d) holds H heads of queries, K of keys, K of values, float32 or the bits of bfloat16,
    as `mixed`; both are contiguous. Queries and keys are normalised (none, layer, rms) and their neighbouring
    features turned by `angles` (T x d / 2 x 2,), cosine and sine.

    Raises ConfigError for lengths that do not fit and for a head that is no multiple of 16 numbers.
    """

def mix_heads_backward(
    projected: NDArray[np.float32] | NDArray[np.uint16],
    grad_mixed: NDArray[np.float32] | NDArray[np.uint16],
    grad_projected: NDArray[np.float32] | NDArray[np.uint16],
    heads: _Heads,
    threads: int,
) -> None:
    """Fill `grad_projected` with the gradient of `projected` for that of the mixed values. See mix_heads."""

def add_and_normalise(
    x: NDArray[np.float32] | NDArray[np.uint16] | None,
    sums: NDArray[np.float32] | NDArray[np.uint16],
    normed: NDArray[np.float32] | NDArray[np.uint16],
    inverses: NDArray[np.float32],
    norm: str,
    eps: float,
    threads: int,
) -> None:
    """Add `x` to `sums`, if there is an x; fill `normed` with their normalised rows, `inverses` (N,) with their scales.

    All but that (N, D), contiguous, float32 or the bits of bfloat16, D a multiple of 16. `norm`: layer or rms.

    Raises ConfigError for lengths that do not fit.
    """

def normalise_backward(
    normed: NDArray[np.float32] | NDArray[np.uint16],
    inverses: NDArray[np.float32],
    grad_normed: NDArray[np.float32] | NDArray[np.uint16],
    grad: NDArray[np.float32] | NDArray[np.uint16],
    norm: str,
    threads: int,
) -> None:
    """Add to `grad` the gradient of the sums for that of the normalised rows. See add_and_normalise."""

def squared_relu(numbers: NDArray[np.float32] | NDArray[np.uint16], threads: int) -> None:
    """Make of each number relu(x)^2, in place; (N, F), contiguous, float32 or the bits of bfloat16."""

def squared_relu_backward(
    squared: NDArray[np.float32] | NDArray[np.uint16],
    grad: NDArray[np.float32] | NDArray[np.uint16],
    threads: int,
) -> None:
    """Make of the gradient of relu(x)^2 that of x, in place. Raises ConfigError for lengths that do not fit."""

def swiglu(
    projected: NDArray[np.float32] | NDArray[np.uint16],
    gated: NDArray[np.float32] | NDArray[np.uint16],
    threads: int,
) -> None:
    """Fill `gated` (N, F) with SiLU(x) y of each row of `projected` (N, 2 F): x, then y.

    Both contiguous and of one format. Raises ConfigError for lengths that do not fit.
    """

def swiglu_backward(
    projected: NDArray[np.float32] | NDArray[np.uint16],
    grad_gated: NDArray[np.float32] | NDArray[np.uint16],
    grad: NDArray[np.float32] | NDArray[np.uint16],
    threads: int,
) -> None:
    """Fill `grad` (N, 2 F) with the gradient of what was projected, for that of what came out. See swiglu."""

# Of the heads; the norm and its epsilon; the activation.
_Parts: TypeAlias = tuple[_Heads, str, float, str]
# Four: (E, D), (D, H), (G, D) and (D, F).
_Matrices: TypeAlias = tuple[NDArray[np.float32], ...]

def run_block(
    x: NDArray[np.float32],
    matrices: _Matrices,
    parts: _Parts,
    y: NDArray[np.float32],
    kept: NDArray[np.float32],
    threads: int,
) -> int:
    """Fill `y` with x + attention(norm(x)), and that plus mlp(norm(that)): (B, T, D), contiguous, D a multiple of 16.

    `kept` has a position's 2 (D + 1) + E + H + F numbers for the backward pass, of swiglu 2 F more: (all,). Products
    are those of adopt_products. `parts`: see mix_heads; the norm, layer or rms; relu2 or swiglu. Returns how many
    sequences were taken at once.

    Raises ConfigError for sizes that do not fit, and where no library was adopted.
    """

def run_block_backward(
    kept: NDArray[np.float32],
    at_once: int,
    matrices: _Matrices,
    parts: _Parts,
    grad: NDArray[np.float32],
    grad_x: NDArray[np.float32],
    grads: _Matrices,
    threads: int,
) -> None:
    """Fill `grad_x` and `grads` with the gradients of x and of the matrices for that of y. See run_block."""

@final
class Tokenizer:
    """A vocabulary and its encoder, immutable; pylm.tokenizer.Tokenizer is its face.

    Every method raises DataError for what is wrong with a text or a file, ConfigError for a setting that cannot be.
    """

    @staticmethod
    def from_json(json: bytes, path: PathLike[str]) -> Tokenizer:
        """Read the bytes of a tokenizer.json; `path` is for messages."""

    @staticmethod
    def from_huggingface(path: PathLike[str]) -> Tokenizer:
        """Read a tokenizer.json."""

    @staticmethod
    def from_tiktoken(
        path: PathLike[str], pattern: str | None, special_tokens: list[tuple[str, int]] | None
    ) -> Tokenizer:
        """Read a .tiktoken file; None stands for what a published file, known by its sha256, is known to have."""

    @staticmethod
    def from_gpt2(vocab: PathLike[str], merges: PathLike[str], special_tokens: list[str] | None) -> Tokenizer:
        """Read GPT-2's two files; None stands for <|endoftext|> where the vocabulary has it."""

    @staticmethod
    def byte(special_tokens: list[str], special_ids: str) -> Tokenizer:
        """Return the vocabulary of single bytes."""

    @staticmethod
    def char(characters: str, special_tokens: list[str], special_ids: str) -> Tokenizer:
        """Return the vocabulary of these characters, distinct, in this order."""

    def with_empty_cache(self) -> Tokenizer:
        """Return the same with nothing remembered of texts."""

    def to_json(self) -> bytes:
        """Return the bytes of tokenizer.json."""

    def to_tiktoken(self) -> bytes:
        """Return the bytes of a .tiktoken file."""

    def to_gpt2(self) -> tuple[bytes, bytes]:
        """Return the bytes of vocab.json and of merges.txt."""

    def encode(self, text: bytes, special: str) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Return the ids of a text in this vocabulary's dtype; `special` is error, allow or text."""

    def encode_batch(
        self, texts: list[bytes], special: str, threads: int
    ) -> list[NDArray[np.uint16] | NDArray[np.uint32]]:
        """Return the ids of each text."""

    def stream(self, special: str) -> Stream:
        """Begin a text that comes in chunks."""

    def decode(self, ids: NDArray[np.uint32]) -> bytes:
        """Return the bytes of a contiguous array of ids."""

    def token_bytes(self, id: int) -> bytes | None:
        """Return a token's bytes; None when no token has this id."""

    def token_lengths(self) -> NDArray[np.uint32]:
        """Return the bytes of each token by id, 0 for special tokens and ids of no token: shape (vocab_size,)."""

    def id_of(self, token: bytes) -> int | None:
        """Return the id of an ordinary token."""

    def merges(self) -> list[tuple[bytes, bytes]]:
        """Return the merges by rank."""

    def special_tokens(self) -> list[tuple[str, int]]:
        """Return the special tokens and their ids."""

    def unreached(self) -> list[int]:
        """Return the ids of the ordinary tokens that merging never makes."""

    @property
    def sha256(self) -> str:
        """SHA-256 of to_json()."""

    @property
    def vocab_size(self) -> int:
        """The largest id + 1."""

    @property
    def n_tokens(self) -> int:
        """How many ids have a token."""

    @property
    def n_merges(self) -> int:
        """How many merges there are."""

    @property
    def dtype(self) -> str:
        """uint16 or uint32."""

    @property
    def over_bytes(self) -> bool:
        """Whether the base symbols are bytes; else they are characters."""

    @property
    def pattern(self) -> str:
        """The pattern's name, or a user's regular expression."""

    @property
    def ignore_merges(self) -> bool:
        """Whether a pre-token that is a token stays whole even where merges would not make it."""

    @property
    def end_of_text_id(self) -> int | None:
        """The id of <|endoftext|>, else of </s>."""

    @property
    def unknown_id(self) -> int | None:
        """What a character without a token becomes."""

@final
class Stream:
    """One text on its way through an encoder."""

    def push(self, chunk: bytes) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Take the next chunk and return the ids that are certain by now."""

    def finish(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """End the text and return its last ids."""

@final
class Learner:
    """Counts texts, then learns a vocabulary from them."""

    def __new__(
        cls, pattern: str, over_bytes: bool, special_tokens: list[str], special_ids: str, threads: int
    ) -> Learner:
        """Begin; the strings of special tokens are not learned from."""

    def add(self, texts: list[bytes]) -> None:
        """Count documents."""

    def learn(
        self,
        vocab_size: int,
        ties: str,
        min_frequency: int,
        max_token_bytes: int | None,
    ) -> Tokenizer:
        """Train, and end."""

AUTO_VOCAB_SIZES: Final[list[tuple[int, int]]]
"""Bytes of text and the vocabulary size from there on, the largest first."""

def read_documents(
    inputs: list[tuple[PathLike[str], str, str, bool]], field: str, limit_bytes: int | None
) -> list[bytes]:
    """Return the documents that are not empty; inputs and limit as tokenize_corpus has them."""

def tokenize_corpus(
    *,
    inputs: Sequence[tuple[PathLike[str], str, str, bool]],
    out: PathLike[str],
    tokenizer: Tokenizer | str,
    words: PathLike[str] | None,
    pattern: str,
    alphabet: str,
    vocab_size: int | None,
    ties: str,
    min_frequency: int,
    max_token_bytes: int | None,
    special_tokens: Sequence[str],
    special_ids: str,
    end_of_text: str | None,
    bare_documents: bool,
    field: str,
    split: str,
    val_fraction: float,
    split_seed: int,
    drop_duplicates: bool,
    limit_bytes: int | None,
    limit_tokens: int | None,
    shard_tokens: int | None,
    vocabulary_only: bool,
    threads: int,
    progress: Callable[[str, int, int], object] | None,
) -> dict[str, Any]:
    """Fill the empty folder `out` with token files, document offsets and tokenizer.json, and return a report.

    `inputs` are (path, format, packing, is_val): text, lines, jsonl or parquet; none, gz, zst or xz. `tokenizer` is
    bpe, byte, char, or a vocabulary to use as it is, then `words` is the tokenizer.words beside it, if any. `split` is
    none, auto, hash or tail; `end_of_text` None is the vocabulary's own. With `vocabulary_only` tokenizer.json alone is
    written, else tokenizer.words too. Sizes are in bytes unpacked, of tokens where the name says so. `progress` is
    called about twenty times a second with the stage (reading, counting, encoding in bytes on disk; merging in merges),
    done and total.

    Raises ConfigError for settings, DataError for inputs and the disk, KeyboardInterrupt or whatever `progress` or a
    signal handler raises; `out` then holds a part of the files.
    """
