"""Memory of training, by part, and its peak: what autograd keeps of each block, as our models are written.

The scores are not among it: fused attention recomputes them, except on a CPU with dropout, for which there is no such
kernel, and in bfloat16 there, where short windows of heads that the extension does not take do without it. With an
arithmetic of 16 bits (autocast) what blocks keep takes half, and their matrices are there once more in 16 bits. A GPU's
blocks are compiled, which spares SwiGLU one number of four.
"""

from collections import defaultdict
from dataclasses import dataclass

from pylm.accounting.counts import n_parameters
from pylm.accounting.shape import shape_of
from pylm.models.config import ModelConfig
from pylm.models.layout import Layout

FLOAT = 4  # bytes of a float32
HALF = 2  # bytes of a bfloat16 or float16
ID = 8  # bytes of a token id in a batch
LOSS_BLOCK_BYTES = {"cpu": 64 << 20, "cuda": 384 << 20}  # those of pylm.loss, which a test compares
LOSS_KEPT_BYTES = 64 << 20
LOSS_MIN_ROWS = 128
EXPLICIT_POSITIONS = 512  # of pylm.models.explicit, as well
FUSED_LANES = 16  # of pylm.models.fused
FUSED_ACTIVATIONS = ("relu2", "swiglu")  # of pylm.models.fused_block
MUON_STACKED_NUMBERS = 1 << 24  # of pylm.muon

# Of a CPU process, measured by benches/memory.py: modules and code that training loads, and what the C library's
# allocator cannot reuse of the freed tensors that are not mapped by themselves (pylm.allocator).
CPU_PROCESS_BYTES = 180 << 20
CPU_FRAGMENTS = 0.06  # of activations and gradients
# Of a GPU, by benches/gpu.py: what kernels work in, and what does not fit the holes that freed tensors leave.
GPU_PROCESS_BYTES = 256 << 20
GPU_FRAGMENTS = 0.04


@dataclass(frozen=True)
class Memory:
    """Bytes of one device, by part. `total` is the most that is held at a time, not the sum of all."""

    weights: int
    gradients: int
    optimizer: int
    activations: int  # kept from the forward pass for the backward pass
    loss: int  # a block of logits, and the gradients that the loss head makes of it
    overhead: int  # of the process and its allocator
    total: int


@dataclass(frozen=True)
class Load:
    """What decides the memory of a step besides the model."""

    micro_batch: int  # sequences held at a time
    context: int
    accumulates: bool = False  # several micro-batches a step: gradients stay while the next one runs
    activation_checkpointing: bool = False
    early_update: bool = False  # inside the backward pass: a gradient is dropped before the next one is there
    optimizer: str = "adamw"
    device: str = "cpu"  # or "cuda"
    dtype: str = "float32"  # of the arithmetic; weights, gradients and moments are float32 always
    n_shards: int = 1  # devices that each hold a part of weights, gradients and moments

    @property
    def width_bytes(self) -> int:
        """Bytes of what goes into and comes out of a matrix product."""
        return FLOAT if self.dtype == "float32" else HALF


def training_memory(config: ModelConfig, load: Load) -> Memory:
    """Return the memory of a training step after the first, when the optimizer's numbers are there."""
    n = n_parameters(config)
    weights = FLOAT * n // load.n_shards
    # An early update holds one gradient at a time; the last one counts below, the head's with the loss.
    gradients = 0 if load.early_update else FLOAT * n // load.n_shards
    optimizer = optimizer_bytes(config, load.optimizer) // load.n_shards
    if load.n_shards > 1:
        gathered = _gathered_bytes(config)
        weights, gradients = weights + gathered, gradients + gathered
    activations = activation_bytes(config, load)
    loss = loss_bytes(config, load)
    process, fragments = (
        (CPU_PROCESS_BYTES, CPU_FRAGMENTS) if load.device == "cpu" else (GPU_PROCESS_BYTES, GPU_FRAGMENTS)
    )
    overhead = process + int(fragments * (activations + gradients))
    # The activations fall as the gradients rise, so that the peak is at an end: at the loss, or at the last gradient.
    at_loss = activations + loss + (gradients if load.accumulates else 0)
    if load.early_update and load.activation_checkpointing and not config.tied:
        # The head's gradient is used up before the first block is there in full.
        at_loss -= min(loss, load.micro_batch * load.context * _recomputed_at_once(config, load))
    kept = _kept_by_the_head(config, load)
    at_end = gradients + _last_gradients(config, load) + kept
    at_step = gradients + _step_bytes(config, load) + kept
    total = weights + optimizer + max(at_loss, at_end, at_step) + overhead
    return Memory(weights, gradients, optimizer, activations, loss, overhead, total)


def activation_bytes(config: ModelConfig, load: Load) -> int:
    """Return the bytes that autograd keeps between the token ids and the loss."""
    blocks = _BLOCKS[config.family](config, load)
    wide = shape_of(config).head.n_in
    ends = ID + load.width_bytes * wide  # token ids; the head's input
    if config.norm != "none":
        ends += load.width_bytes * wide + FLOAT * _norm_numbers(config)
    if config.family == "stacks" and config.norm != "none":
        ends += FLOAT * (config.width + _norm_numbers(config))
    # A CPU keeps the convolution's input only, unless documents are masked, which is not known here.
    n_kept = config.embedding_conv if load.device != "cpu" else min(1, config.embedding_conv)
    ends += FLOAT * config.width * n_kept
    if config.embedding_norm and config.norm != "none":
        ends += FLOAT * (config.width + _norm_numbers(config))
    if config.dropout:
        ends += _dropout_bytes(config.width, load)
    kept = sum(blocks)
    if load.activation_checkpointing:
        # The inputs of what is recomputed, of which one at a time is there in full.
        inputs = config.width * len(blocks) + (sum(_wides(config)) if config.family == "stacks" else 0)
        kept = load.width_bytes * inputs + _recomputed_at_once(config, load)
    of_all = _joined_bytes(config, load) + _mask_bytes(config, load.context) + _copied_bytes(config, load)
    return load.micro_batch * load.context * (ends + kept) + of_all


def loss_bytes(config: ModelConfig, load: Load) -> int:
    """Return the bytes of the loss head: the features' gradient and the matrix's, and a block of logits."""
    wide = shape_of(config).head.n_in
    n_rows = load.micro_batch * load.context
    block = _block_bytes(config, load)
    matrix = 0 if load.dtype == "float32" else HALF * wide * config.vocab_size  # a copy
    if (load.device, load.dtype) == ("cpu", "float32"):
        block *= 2  # the product with its transpose copies it
    return FLOAT * wide * (n_rows + config.vocab_size) + matrix + block


def _block_bytes(config: ModelConfig, load: Load) -> int:
    """Return the bytes of a block of logits."""
    row = load.width_bytes * config.vocab_size
    return row * min(
        load.micro_batch * load.context, max(LOSS_MIN_ROWS, LOSS_BLOCK_BYTES[load.device] // row)
    )


def _kept_by_the_head(config: ModelConfig, load: Load) -> int:
    """Return the bytes that the head has from one step to the next: in 16 bits on a CPU a block and the matrix."""
    if load.device != "cpu" or load.dtype == "float32":
        return 0
    matrix = HALF * shape_of(config).head.n_in * config.vocab_size
    return sum(size for size in (_block_bytes(config, load), matrix) if size <= LOSS_KEPT_BYTES)


def cache_bytes(config: ModelConfig, batch_size: int, n_tokens: int) -> int:
    """Return the bytes of the keys and values of `n_tokens` of each of `batch_size` sequences, in float32."""
    shape = shape_of(config)
    kv_width = config.kv_heads * config.head_size
    n_keys = n_tokens if config.attention == "full" else _layout(config).n_cached(n_tokens)
    return 2 * FLOAT * batch_size * n_keys * kv_width * shape.n_attentions


def optimizer_bytes(config: ModelConfig, optimizer: str) -> int:
    """Return the bytes that an optimizer keeps: AdamW two numbers a parameter, Muon one for a block's matrix."""
    twice = 2 * FLOAT * n_parameters(config)
    return twice - FLOAT * _n_in_matrices(config) if optimizer == "muon" else twice


def checkpoint_bytes(config: ModelConfig, optimizer: str) -> int:
    """Return the bytes of a checkpoint's tensors: the weights, and what the optimizer keeps."""
    return FLOAT * n_parameters(config) + optimizer_bytes(config, optimizer)


def _n_in_matrices(config: ModelConfig) -> int:
    """How many numbers stand in the matrices of the blocks, which are Muon's."""
    return sum(matrix.n_in * matrix.n_out * matrix.count for matrix in shape_of(config).matrices[:-1])


def _gathered_bytes(config: ModelConfig) -> int:
    """Bytes of what is whole at a time of a model in parts: what is in no block, and two blocks, the next being on
    its way while one works; of the gradients as much.
    """
    n_blocks = config.n_stacks if config.family == "stacks" else config.n_layers
    in_blocks = _n_in_matrices(config)
    return FLOAT * (n_parameters(config) - in_blocks + min(2, n_blocks) * -(-in_blocks // n_blocks))


def _step_bytes(config: ModelConfig, load: Load) -> int:
    """Bytes that the optimizer's step needs for itself.

    Muon's updates are beside the gradients; while the matrices of one shape, turned or not, are made orthogonal they
    are there as a stack, and three more times in the product that adds to it; in 16 bits four more times.
    """
    if load.optimizer != "muon":
        return 0
    of_shape: dict[tuple[int, int], int] = defaultdict(int)
    for matrix in shape_of(config).matrices[:-1]:
        rows = matrix.n_out // matrix.n_parts
        count = 1 if load.n_shards > 1 else matrix.count  # those in parts are gathered one by one
        sides = min(rows, matrix.n_in), max(rows, matrix.n_in)
        of_shape[sides] += rows * matrix.n_in * matrix.n_parts * count
    halved = load.device != "cpu" or load.dtype == "bfloat16"
    of_number = FLOAT + 4 * HALF if halved else 4 * FLOAT
    stacked = max(
        min(n, max(MUON_STACKED_NUMBERS, rows * columns)) for (rows, columns), n in of_shape.items()
    )
    return FLOAT * (_n_in_matrices(config) // load.n_shards) + of_number * stacked


def _residual_blocks(config: ModelConfig, load: Load) -> list[int]:
    """Bytes a token that each block of attention and an MLP keeps."""
    width = config.width
    if _is_one(config, load):  # the normalised, twice, with what divided it; the MLP inside; the attention's
        in_mlp = 3 if config.mlp == "swiglu" else 1
        numbers = 2 * (load.width_bytes * width + FLOAT) + load.width_bytes * in_mlp * config.hidden
        return [numbers + _attention_bytes(config, load, 1)] * config.n_layers
    norms = 0 if config.norm == "none" else 2 * (load.width_bytes * width + FLOAT * _norm_numbers(config))
    in_mlp = _ACTIVATION_NUMBERS[config.mlp] - (load.device != "cpu" and config.mlp == "swiglu")
    products = 2 * width + in_mlp * config.hidden  # two layers' inputs, the MLP inside
    dropped = 2 * _dropout_bytes(width, load) if config.dropout else 0
    numbers = norms + load.width_bytes * products + _attention_bytes(config, load, 1) + dropped
    return [numbers] * config.n_layers


def _stacks(config: ModelConfig, load: Load) -> list[int]:
    """The same for each stack."""
    return [layers + ffn for layers, ffn in _stack_parts(config, load)]


def _stack_parts(config: ModelConfig, load: Load) -> list[tuple[int, int]]:
    """The same for each stack's two parts: its layers side by side, with all that is narrow, and its wide FFN."""
    parts: list[tuple[int, int]] = []
    activation = _ACTIVATION_NUMBERS[config.mlp]
    for wide in _wides(config):
        last = len(parts) == config.n_stacks - 1
        # Input; reduced, normalised twice, output.
        in_layers = config.width + 4 * wide + activation * 4 * wide + 2 * config.n_layers
        if not _joins(config, load, wide):  # what goes into the reduction
            in_layers += config.n_layers * config.width
        in_ffn = activation * (16 if last else 4) * config.width
        dropped = _dropout_bytes(wide, load) if config.dropout else 0
        attention = _attention_bytes(config, load, config.n_layers)
        layers = load.width_bytes * in_layers + attention + dropped
        parts.append((layers, load.width_bytes * in_ffn + dropped))
    return parts


def _joins(config: ModelConfig, load: Load, wide: int) -> bool:
    """Whether a stack multiplies its output and its reduction first: for more tokens than a narrow layer's features."""
    return load.micro_batch * load.context > wide // config.n_layers


def _wides(config: ModelConfig) -> list[int]:
    """Features of what each stack's layers make together."""
    return [config.width] * (config.n_stacks - 1) + [config.width * config.expansion]


def _recomputed_at_once(config: ModelConfig, load: Load) -> int:
    """Bytes a token of the largest part of a model that is recomputed in one: a block, of a stack one of its parts."""
    if config.family == "stacks":
        return max(max(parts) for parts in _stack_parts(config, load))
    return max(_BLOCKS[config.family](config, load))


def _joined_bytes(config: ModelConfig, load: Load) -> int:
    """Bytes of the products of two matrices that stacks make."""
    if config.family != "stacks":
        return 0
    joined = [config.width * wide for wide in _wides(config) if _joins(config, load, wide)]
    return load.width_bytes * (max(joined, default=0) if load.activation_checkpointing else sum(joined))


def _norm_numbers(config: ModelConfig) -> int:
    """Numbers a token that a norm keeps besides its input: the deviation, and LayerNorm the mean."""
    return 1 if config.norm_kind == "rms" else 2


def _dropout_bytes(width: int, load: Load) -> int:
    """Bytes a token of the mask: a CPU has no fused kernel and keeps the noise as floats."""
    return FLOAT * width if load.device == "cpu" else width


def _attention_bytes(config: ModelConfig, load: Load, n_copies: int) -> int:
    """Bytes a token: queries, keys and values as the kernel sees them, its output, and a sum for each head."""
    n_heads, kv_heads = n_copies * config.n_heads, n_copies * config.kv_heads
    width, kv_width = n_heads * config.head_size, kv_heads * config.head_size
    normed = config.qk_norm and config.norm != "none"
    statistics = FLOAT * _norm_numbers(config) * (n_heads + kv_heads) if normed else 0
    plain_rms = (config.norm_kind, config.norm_gains) == ("rms", "none")
    if normed and load.dtype != "float32" and plain_rms and load.device == "cpu":
        statistics += 2 * FLOAT * (width + kv_width)  # torch's own normalises in float32: there and back
    product = width + 2 * kv_width  # of the fused layer: all of it stays while a part is needed
    if config.attention == "compressed":
        return _compressed_bytes(config, load) + statistics
    if config.dropout and load.device == "cpu":
        # No fused kernel: copies of q, k and v, and for each query and head the weights, the noise and their product.
        numbers = 4 * width + 3 * n_heads * load.context + (product if normed else 0)
        return load.width_bytes * numbers + statistics
    if load.device == "cpu" and _is_fused(config):
        return load.width_bytes * (product + width)  # what comes in and what goes out
    if (
        (load.device, load.dtype) == ("cpu", "bfloat16")
        and load.context <= EXPLICIT_POSITIONS
        and width == kv_width
    ):
        # Copies of q, k and v, the weights; and the fused layer's output where a norm keeps its input.
        normed_from = product if normed and config.norm_kind == "layer" else 0
        return load.width_bytes * (width + product + n_heads * load.context + normed_from) + statistics
    turned = width + kv_width if config.positions == "rope" or normed else 0
    return load.width_bytes * (width + product + turned) + FLOAT * n_heads + statistics


def _is_fused(config: ModelConfig) -> bool:
    """Whether a CPU mixes these heads by the extension, but for the number of its threads: see pylm.models.fused."""
    plain = not config.qk_norm or config.norm == "none" or config.norm_gains == "none"
    return plain and config.head_size % FUSED_LANES == 0


def _is_one(config: ModelConfig, load: Load) -> bool:
    """Whether a CPU takes a block as one: see pylm.models.transformer, whose norm alone is `pre`."""
    kinds = (config.norm, config.norm_gains, config.attention) == ("pre", "none", "full")
    plain = kinds and config.mlp in FUSED_ACTIVATIONS and not config.bias and not config.dropout
    return plain and load.device == "cpu" and _is_fused(config)


def _compressed_bytes(config: ModelConfig, load: Load) -> int:
    """The same without norms' statistics for compressed attention, which has no dropout on its weights."""
    width, layout = config.width, _layout(config)
    product, turned = 3 * width, 2 * width if config.positions == "rope" else 0
    normed = 2 * width if config.qk_norm and config.norm != "none" else 0
    if not layout.is_dense(load.context):  # blocks keep their inputs and their output
        return load.width_bytes * (product + normed + width)
    n_slots = layout.n_pooled(load.context, 1)
    if n_slots == 0:
        return load.width_bytes * (product + (turned or normed) + width) + FLOAT * config.n_heads
    keys = 2 * width * (load.context + n_slots) // load.context  # keys and values, copied beside their slots
    queries = turned // 2 or normed or product  # turned, or a part of what they were made in
    numbers = keys + queries + (product if normed else 0) + width
    return load.width_bytes * numbers + FLOAT * config.n_heads


def _mask_bytes(config: ModelConfig, context: int) -> int:
    """Bytes of the mask of compressed attention by one product, which all layers share."""
    if config.attention == "full" or not _layout(config).is_dense(context):
        return 0
    n_slots = _layout(config).n_pooled(context, 1)
    return FLOAT * context * (context + n_slots) if n_slots else 0


def _copied_bytes(config: ModelConfig, load: Load) -> int:
    """Bytes of the blocks' matrices in the arithmetic's 16 bits, which autocast makes and the backward pass needs."""
    if load.dtype == "float32":
        return 0
    n_numbers = _n_in_matrices(config)
    n_blocks = config.n_stacks if config.family == "stacks" else config.n_layers
    return HALF * (n_numbers // n_blocks if load.activation_checkpointing else n_numbers)


def _layout(config: ModelConfig) -> Layout:
    return Layout.of(config.proj_ratio, config.proj_ratio_min, config.num_keep_boundary_chunk)


# For each hidden feature: what goes into the activation, where its gradient needs that, and what comes out of it.
_ACTIVATION_NUMBERS = {"swiglu": 4, "silu": 2, "gelu": 2, "gelu_tanh": 2, "relu": 1, "relu2": 2}

_BLOCKS = {"transformer": _residual_blocks, "tiny": _residual_blocks, "stacks": _stacks}


def _last_gradients(config: ModelConfig, load: Load) -> int:
    """Bytes beside the gradients when the last of them, the embedding's, is there.

    A tied table has two on a GPU, which are then added; one that is added to an older one is there beside it. After
    early updates it is the only one.
    """
    n_tables = (config.tied and load.device != "cpu") + load.accumulates + load.early_update
    return FLOAT * config.vocab_size * config.width * n_tables
