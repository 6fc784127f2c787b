"""Parameters and floating-point operations, by part.

Operations are those of matrix products alone, two for each multiply-add, as torch's FlopCounterMode counts them:
every query against every key, although a causal kernel may skip the half that is masked (the convention of PaLM,
appendix B, and of MFU).
"""

from collections import defaultdict

from pylm.accounting.shape import (
    HEAD,
    MIXING,
    NORMS,
    OUTPUT,
    POOLING,
    QKV,
    SCORES,
    WEIGHTED_SUM,
    Shape,
    shape_of,
)
from pylm.models.config import ModelConfig
from pylm.models.layout import Layout


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """Return trained numbers by part; a tied head counts under the embedding alone."""
    shape = shape_of(config)
    counts: dict[str, int] = defaultdict(int, shape.tables)
    for matrix in shape.matrices:
        counts[matrix.part] += matrix.n_parameters
    if shape.tied:
        counts[HEAD] = shape.head.n_out * shape.head.bias
    counts[NORMS] = shape.norms
    return {part: count for part, count in counts.items() if count or part == HEAD}


def n_parameters(config: ModelConfig) -> int:
    """Return how many numbers are trained."""
    return sum(parameters_by_part(config).values())


def forward_flops_by_part(
    config: ModelConfig, context: int, batch_size: int = 1, device: str = "cpu"
) -> dict[str, int]:
    """Return operations of one forward pass over batch_size x context tokens, by part.

    The device matters to compressed attention alone, which cuts long sequences into blocks that suit it.
    """
    shape = shape_of(config)
    n_tokens = batch_size * context
    counts: dict[str, int] = defaultdict(int)
    for matrix in shape.matrices:
        counts[matrix.part] += 2 * n_tokens * matrix.n_in * matrix.n_out * matrix.count
        if matrix.part == QKV:
            scores, pooling = _attention_products(config, context, batch_size, device)
            width = 2 * batch_size * shape.attention_width * shape.n_attentions
            if pooling:
                counts[POOLING] = 2 * width * pooling  # of keys, and of values
            counts[SCORES] = counts[WEIGHTED_SUM] = width * scores
    if config.family == "stacks":
        _join_output_and_mixing(config, shape, n_tokens, counts)
    return dict(counts)


def _attention_products(config: ModelConfig, context: int, batch_size: int, device: str) -> tuple[int, int]:
    """Products of a head's features for one sequence: queries with keys, and positions that slots are made of."""
    if config.attention == "full":
        return context * context, 0
    layout = Layout.of(config.proj_ratio, config.proj_ratio_min, config.num_keep_boundary_chunk)
    n_heads = batch_size * config.n_heads
    n_slots = layout.n_pooled(context, n_heads, device)
    return layout.n_scores(context, n_heads, device), layout.chunk * n_slots


def _join_output_and_mixing(config: ModelConfig, shape: Shape, n_tokens: int, counts: dict[str, int]) -> None:
    """Where tokens are more than a layer's features, the stacks multiply the two matrices first: put that down."""
    for mixing in shape.matrices:
        if mixing.part != MIXING or n_tokens <= mixing.n_out:
            continue
        of_width = (
            2 * config.width * mixing.count
        )  # x operations of a product with all layers' width, for each row
        counts[OUTPUT] += of_width * (
            config.width * mixing.n_out - n_tokens * config.width + n_tokens * mixing.n_out
        )
        counts[MIXING] += of_width * mixing.n_out * mixing.bias  # the outputs' bias goes through the mixing


def forward_flops(config: ModelConfig, context: int, batch_size: int = 1, device: str = "cpu") -> int:
    """Return operations of one forward pass over batch_size x context tokens."""
    return sum(forward_flops_by_part(config, context, batch_size, device).values())


def training_flops(config: ModelConfig, context: int, batch_size: int = 1, device: str = "cpu") -> int:
    """Return operations of a forward and a backward pass, which takes two products for each of the forward's.

    Recomputed activations are not counted: they are work, but not progress.
    """
    return 3 * forward_flops(config, context, batch_size, device)
