"""Models by name: each source's shape and recipe, as data.

Rates, batches and the schedule's form belong to a recipe; a run's length does not. Facts: docs/models.md.
"""

from dataclasses import dataclass, replace

from pylm.errors import ConfigError
from pylm.models.config import ModelConfig


@dataclass(frozen=True)
class Recipe:
    """How a source trains its model; None where it says nothing."""

    batch_size: int | None = None  # sequences of one optimizer step
    context: int | None = None  # tokens of a training window
    lr: float | None = None  # the peak
    warmup: int | None = None  # steps
    schedule: str | None = None  # "cosine", "linear" or "constant", after the warm-up
    final_fraction: float | None = None  # of the peak, where the schedule ends
    weight_decay: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    clip: float | None = None  # of the gradients' global norm; 0 for none
    dtype: str | None = None  # of the arithmetic: "float32", "bfloat16", "float16"
    activation_checkpointing: bool | None = None


@dataclass(frozen=True)
class Preset:
    """A model and its recipe; `n_parameters` is the exact count, a tied table counted once."""

    model: ModelConfig
    recipe: Recipe
    n_parameters: int
    source: str


def find_preset(name: str) -> Preset:
    """The preset of that name; raises ConfigError naming all of them."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


_S3 = Recipe(
    batch_size=64,  # 16 sequences x 4 micro-batches
    context=1_024,
    lr=6e-4,
    warmup=2_000,
    schedule="cosine",
    weight_decay=0.1,
    clip=1.0,
)
_S1 = Recipe(
    batch_size=32,
    context=64,
    lr=1e-3,
    warmup=100,
    schedule="linear",
    final_fraction=0.01,  # 1e-3 to 1e-5
    weight_decay=0.01,
    beta1=0.9,
    beta2=0.999,
    clip=0.0,
    dtype="float32",
)
_S2 = Recipe(
    batch_size=2,
    context=2_048,
    lr=1e-4,
    warmup=0,
    schedule="constant",
    final_fraction=1.0,
    weight_decay=0.0,  # Adam
    beta1=0.9,
    beta2=0.999,
    clip=0.0,
    dtype="float32",
)
_S0 = Recipe(
    batch_size=50,
    context=64,
    lr=1e-3,
    warmup=4_000,
    clip=0.5,
    dtype="bfloat16",
    activation_checkpointing=True,
)
_S4_STORIES = Recipe(batch_size=128, context=256, lr=5e-3)
_S4_LARGE = Recipe(batch_size=1_024, context=1_024)
# The real GPT-2's training was never published; these are its batch (512 x 1,024) and GPT-3's rate for that size.
_GPT2 = Recipe(
    batch_size=512,
    context=1_024,
    lr=6e-4,
    warmup=700,
    schedule="cosine",
    final_fraction=0.1,
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.95,
    clip=1.0,
)


def _llama(n_layers: int, width: int, n_heads: int, mlp_hidden: int) -> ModelConfig:
    return ModelConfig(n_layers=n_layers, width=width, n_heads=n_heads, mlp_hidden=mlp_hidden)


def _tiny(vocab_size: int, width: int, n_layers: int, n_heads: int, max_context: int = 64) -> ModelConfig:
    return ModelConfig(
        family="tiny",
        vocab_size=vocab_size,
        max_context=max_context,
        n_layers=n_layers,
        width=width,
        n_heads=n_heads,
        mlp="gelu_tanh",
        norm="post",
        norm_kind="layer",
        norm_eps=1e-5,
        norm_gains="normal",
        positions="sinusoid",
        bias=True,
        qkv_bias=False,
        tied=False,
        head_bias=True,
    )


def _stacks(n_stacks: int, width: int, n_layers: int, expansion: int) -> ModelConfig:
    return ModelConfig(
        family="stacks",
        vocab_size=110_000,
        max_context=2_048,
        n_stacks=n_stacks,
        n_layers=n_layers,
        width=width,
        n_heads=4,
        expansion=expansion,
        mlp="relu",
        norm_kind="layer",
        norm_eps=1e-5,
        positions="sinusoid",
        bias=True,
        tied=False,
        head_bias=True,
        dropout=0.1,
        init="torch",
    )


def _swiglu(
    n_layers: int,
    width: int,
    n_heads: int,
    vocab_size: int = 50_257,
    mlp_hidden: int = 0,
    max_context: int = 1_024,
) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size,
        max_context=max_context,
        n_layers=n_layers,
        width=width,
        n_heads=n_heads,
        mlp_hidden=mlp_hidden,
        norm_eps=1e-5,
        tied=False,
        init="xavier",
    )


_GPT2_SMALL = ModelConfig(
    vocab_size=50_257,
    max_context=1_024,
    n_layers=12,
    width=768,
    n_heads=12,
    mlp="gelu_tanh",
    norm_kind="layer",
    norm_eps=1e-5,
    positions="learned",
    bias=True,
    dropout=0.1,
    init="gpt2",
)

_COMPRESSED = ModelConfig(
    vocab_size=200_019,
    max_context=8_192,
    n_layers=32,
    width=1_024,
    n_heads=16,
    mlp="gelu",
    mlp_hidden=512,
    norm_kind="layer",
    norm_eps=1e-5,
    bias=True,
    init="gpt2",
    attention="compressed",
    proj_ratio=10,
    proj_ratio_min=2,
    num_keep_boundary_chunk=2,
)

PRESETS: dict[str, Preset] = {
    "llama-138m": Preset(_llama(12, 768, 12, 3_072), _S3, 137_841_408, "S3"),
    "llama-350m": Preset(_llama(24, 1_024, 16, 2_944), _S3, 350_536_704, "S3"),
    "llama-700m": Preset(_llama(32, 1_280, 20, 3_648), _S3, 699_024_640, "S3"),
    "compressed-373m": Preset(_COMPRESSED, _S0, 372_904_960, "S0"),
    "stacks-577m": Preset(_stacks(4, 1_024, 8, 2), _S2, 577_317_296, "S2"),
    "stacks-454m": Preset(_stacks(2, 512, 64, 4), _S2, 453_747_632, "S2"),
    "tiny-67k": Preset(_tiny(256, 32, 4, 2), _S1, 67_136, "S1"),
    "tiny-232k": Preset(_tiny(256, 64, 4, 4), _S1, 232_320, "S1"),
    "tiny-332k": Preset(_tiny(256, 64, 6, 4), _S1, 331_904, "S1"),
    "tiny-507k": Preset(_tiny(256, 80, 6, 4), _S1, 506_976, "S1"),
    "tiny-1.3m": Preset(_tiny(256, 128, 6, 8), _S1, 1_253_376, "S1"),
    "tiny-2.7m": Preset(_tiny(566, 160, 8, 8, max_context=80), replace(_S1, context=80), 2_652_406, "S1"),
    "tiny-6.4m": Preset(_tiny(256, 256, 8, 8), _S1, 6_443_776, "S1"),
    "tiny-39.7m": Preset(_tiny(256, 640, 8, 8), _S1, 39_702_016, "S1"),
    "stories-22.7m": Preset(_swiglu(4, 512, 16, 10_000, 1_344, 256), _S4_STORIES, 22_696_448, "S4"),
    "swiglu-190m": Preset(_swiglu(12, 768, 12), _S4_LARGE, 190_460_160, "S4"),
    "swiglu-506m": Preset(_swiglu(24, 1_024, 16), _S4_LARGE, 505_629_696, "S4"),
    "swiglu-1.1b": Preset(_swiglu(36, 1_280, 20), _S4_LARGE, 1_072_469_760, "S4"),
    "swiglu-2.1b": Preset(_swiglu(48, 1_600, 25), _S4_LARGE, 2_127_057_600, "S4"),
    "gpt2-124m": Preset(_GPT2_SMALL, _GPT2, 124_439_808, "GPT-2"),
}
