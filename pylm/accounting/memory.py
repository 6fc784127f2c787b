"""Memory of training, by part, and its peak: what autograd keeps of each block, as our models are written.

Counted are the tensors that a training step on one device holds in float32. The scores are not among them: torch's
fused attention recomputes them, except on a CPU with dropout, where it has no fused kernel.
"""

from dataclasses import dataclass

from pylm.accounting.counts import n_parameters
from pylm.accounting.shape import shape_of
from pylm.models.config import ModelConfig

FLOAT = 4  # bytes of a float32
ID = 8  # bytes of a token id in a batch
OPTIMIZER_NUMBERS = {"adamw": 2, "sgd": 0}  # kept for each parameter

# Of a CPU process, measured by benches/memory.py: modules and code that training loads, and what the C library's
# allocator cannot reuse or give back of the freed tensors below its 32 MiB threshold.
CPU_PROCESS_BYTES = 180 << 20
CPU_FRAGMENTS = 0.12  # of activations and gradients


@dataclass(frozen=True)
class Memory:
    """Bytes of one device, by part. `total` is the most that is held at a time, not the sum of all."""

    weights: int
    gradients: int
    optimizer: int
    activations: int  # kept from the forward pass for the backward pass
    logits: int  # the logits, and what the loss makes of them
    overhead: int  # of the process and its allocator
    total: int


@dataclass(frozen=True)
class Load:
    """What decides the memory of a step besides the model."""

    micro_batch: int  # sequences held at a time
    context: int
    accumulates: bool = False  # several micro-batches a step: gradients stay while the next one runs
    activation_checkpointing: bool = False
    optimizer: str = "adamw"
    device: str = "cpu"


def training_memory(config: ModelConfig, load: Load) -> Memory:
    """Return the memory of a training step after the first, when the optimizer's numbers are there."""
    n = n_parameters(config)
    weights = gradients = FLOAT * n
    optimizer = FLOAT * n * OPTIMIZER_NUMBERS[load.optimizer]
    activations = activation_bytes(config, load)
    logits = logits_bytes(config, load)
    overhead = (
        CPU_PROCESS_BYTES + int(CPU_FRAGMENTS * (activations + gradients)) if load.device == "cpu" else 0
    )
    # The activations fall as the gradients rise, so that the peak is at an end: at the loss, or at the last gradient.
    at_loss = activations + logits + (gradients if load.accumulates else 0)
    at_end = gradients + _last_gradients(config, load)
    total = weights + optimizer + max(at_loss, at_end) + overhead
    return Memory(weights, gradients, optimizer, activations, logits, overhead, total)


def activation_bytes(config: ModelConfig, load: Load) -> int:
    """Return the bytes that autograd keeps between the token ids and the logits."""
    n_tokens = load.micro_batch * load.context
    ends = ID + FLOAT * config.width  # token ids; the head's input
    if config.norm != "none":
        ends += FLOAT * (config.width + _norm_numbers(config))
    if config.dropout:
        ends += _dropout_bytes(config.width, load)
    block = _FAMILIES[config.family](config, load)
    if load.activation_checkpointing:
        kept = FLOAT * config.width  # each block's input; one block at a time is there in full
        return n_tokens * (ends + config.n_layers * kept + block)
    return n_tokens * (ends + config.n_layers * block)


def logits_bytes(config: ModelConfig, load: Load) -> int:
    """Return the bytes of the logits' log-softmax, its gradient and the logits' gradient, all there at once."""
    return 3 * FLOAT * load.micro_batch * load.context * config.vocab_size


def cache_bytes(config: ModelConfig, batch_size: int, n_tokens: int) -> int:
    """Return the bytes of the keys and values of `n_tokens` of each of `batch_size` sequences, in float32."""
    shape = shape_of(config)
    kv_width = config.kv_heads * config.head_size
    return 2 * FLOAT * batch_size * n_tokens * kv_width * shape.n_attentions


def checkpoint_bytes(config: ModelConfig, optimizer: str = "adamw") -> int:
    """Return the bytes of a checkpoint's tensors: the weights, and what the optimizer keeps."""
    return FLOAT * n_parameters(config) * (1 + OPTIMIZER_NUMBERS[optimizer])


def _residual_block(config: ModelConfig, load: Load) -> int:
    """Bytes a token that one block of attention and an MLP keeps."""
    width = config.width
    numbers = (
        2 * width if config.norm == "none" else 4 * width
    )  # inputs of norms and of the layers after them
    if config.norm != "none":
        numbers += 2 * _norm_numbers(config)
    numbers += _attention_numbers(config, load) + _mlp_numbers(config)
    return FLOAT * numbers + (2 * _dropout_bytes(width, load) if config.dropout else 0)


def _norm_numbers(config: ModelConfig) -> int:
    """Numbers a token that a norm keeps besides its input: the deviation, and LayerNorm the mean."""
    return 1 if config.norm_kind == "rms" else 2


def _dropout_bytes(width: int, load: Load) -> int:
    """Bytes a token of the mask: a CPU has no fused kernel and keeps the noise as floats."""
    return FLOAT * width if load.device == "cpu" else width


def _attention_numbers(config: ModelConfig, load: Load) -> int:
    """Numbers a token: queries, keys and values as the kernel sees them, its output, and a sum for each head."""
    width, kv_width = config.width, config.kv_heads * config.head_size
    normed = config.qk_norm and config.norm != "none"
    statistics = _norm_numbers(config) * (config.n_heads + config.kv_heads) if normed else 0
    product = width + 2 * kv_width  # of the fused layer: all of it stays while a part is needed
    if config.dropout and load.device == "cpu":
        # No fused kernel: copies of q, k and v, and for each query and head the weights, the noise and their product.
        return 4 * width + 3 * config.n_heads * load.context + (product + statistics if normed else 0)
    turned = width + kv_width if config.positions == "rope" or normed else 0
    return width + config.n_heads + product + turned + statistics


def _mlp_numbers(config: ModelConfig) -> int:
    """Numbers a token: what goes into the activation, where its gradient needs that, and what goes out of it."""
    return {"swiglu": 4, "silu": 2, "gelu": 2, "gelu_tanh": 2, "relu": 1, "relu2": 2}[
        config.mlp
    ] * config.hidden


_FAMILIES = {"transformer": _residual_block}


def _last_gradients(config: ModelConfig, load: Load) -> int:
    """Bytes beside the gradients when the last of them is added.

    A tied table's is the sum of two others, a new tensor; one that is added to an older one is there beside it.
    """
    table = FLOAT * config.vocab_size * config.width
    return table * (2 * config.tied + load.accumulates)
