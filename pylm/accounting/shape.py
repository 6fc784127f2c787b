"""A model as what it computes with: its matrices, attentions, norms and tables, from the config alone."""

from collections.abc import Callable
from dataclasses import dataclass

from pylm.models.config import ModelConfig


@dataclass(frozen=True)
class Matrix:
    """`count` linear layers of n_in features to n_out, all of which see every token.

    `n_parts` of equal size stand one above another in each: queries, keys and values, or gate and value.
    """

    part: str
    n_in: int
    n_out: int
    bias: bool = False
    count: int = 1
    n_parts: int = 1

    @property
    def n_parameters(self) -> int:
        """Weights and biases of all of them."""
        return self.count * self.n_out * (self.n_in + self.bias)


@dataclass(frozen=True)
class Shape:
    """Everything that parameters and operations are counted from.

    `tied` says that the last matrix is the table of the embedding. `norms` and `tables` are numbers of
    parameters by part. An attention takes products of queries and keys, and of weights and values, over
    `attention_width` features (heads x head size).
    """

    matrices: tuple[Matrix, ...]  # the head last
    tied: bool
    tables: dict[str, int]
    norms: int
    attention_width: int
    n_attentions: int

    @property
    def head(self) -> Matrix:
        """Features to logits."""
        return self.matrices[-1]


# The parts in the order in which tables show them.
QKV, POOLING, SCORES, WEIGHTED_SUM, OUTPUT, MIXING, MLP, HEAD = (
    "query, key, value",
    "pooling",
    "scores",
    "weighted sum",
    "output",
    "mixing",
    "mlp",
    "head",
)
EMBEDDING, POSITIONS, CONVOLUTION, NORMS = "embedding", "positions", "convolution", "norms"


def shape_of(config: ModelConfig) -> Shape:
    """Return the shape of a config of any family."""
    return _FAMILIES[config.family](config)


def _transformer(config: ModelConfig) -> Shape:
    width, n_layers = config.width, config.n_layers
    norm = _norm(config, width)
    qk_norm = 2 * _norm(config, config.head_size) if config.qk_norm else 0
    return Shape(
        matrices=(
            *_attention_matrices(config, n_layers),
            *_mlp(config, width, config.hidden, width, n_layers),
            _head(config, width),
        ),
        tied=config.tied,
        tables=_tables(config),
        norms=n_layers * (2 * norm + qk_norm) + norm * (2 if config.embedding_norm else 1),
        attention_width=width,
        n_attentions=n_layers,
    )


def _stacks(config: ModelConfig) -> Shape:
    """S2: stacks of `n_layers` narrow layers side by side; the last stack is `expansion` times as wide."""
    width, n_layers, n_stacks = config.width, config.n_layers, config.n_stacks
    matrices: list[Matrix] = list(_attention_matrices(config, n_layers * n_stacks))
    norms = _norm(config, width)  # after the embedding
    for stack in range(n_stacks):
        last = stack == n_stacks - 1
        out = width * (config.expansion if last else 1)
        narrow = out // n_layers
        matrices += [
            Matrix(MIXING, width, narrow, config.bias, n_layers),
            *_mlp(config, narrow, 4 * narrow, narrow, n_layers),
            *_mlp(config, out, (16 if last else 4) * width, out, 1),
        ]
        norms += n_layers * _norm(config, narrow)
    wide = width * config.expansion
    norms += _norm(config, wide)
    return Shape(
        matrices=(*matrices, _head(config, wide)),
        tied=config.tied,
        tables=_tables(config),
        norms=norms,
        attention_width=width,
        n_attentions=n_layers * n_stacks,
    )


_FAMILIES: dict[str, Callable[[ModelConfig], Shape]] = {
    "transformer": _transformer,
    "tiny": _transformer,
    "stacks": _stacks,
}


def _attention_matrices(config: ModelConfig, count: int) -> tuple[Matrix, Matrix]:
    qkv_out = config.width + 2 * config.kv_heads * config.head_size
    return (
        Matrix(QKV, config.width, qkv_out, config.bias and config.qkv_bias, count, n_parts=3),
        Matrix(OUTPUT, config.width, config.width, config.bias, count),
    )


def _mlp(config: ModelConfig, n_in: int, hidden: int, n_out: int, count: int) -> tuple[Matrix, Matrix]:
    gates = 2 if config.mlp == "swiglu" else 1
    return (
        Matrix(MLP, n_in, gates * hidden, config.bias, count, n_parts=gates),
        Matrix(MLP, hidden, n_out, config.bias, count),
    )


def _head(config: ModelConfig, width: int) -> Matrix:
    return Matrix(HEAD, width, config.vocab_size, config.head_bias)


def _tables(config: ModelConfig) -> dict[str, int]:
    learned = config.max_context * config.width if config.positions == "learned" else 0
    return {
        EMBEDDING: config.vocab_size * config.width,
        POSITIONS: learned,
        CONVOLUTION: config.embedding_conv * config.width,
    }


def _norm(config: ModelConfig, width: int) -> int:
    if config.norm == "none" or config.norm_gains == "none":
        return 0
    return {"rms": width, "layer": 2 * width}[config.norm_kind]
