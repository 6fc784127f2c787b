"""Models by name: each source's shape and recipe, as data.

Rates, batches and the schedule's form belong to a recipe; a run's length does not. Facts: docs/models.md.
"""

from dataclasses import dataclass

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


_LLAMA_RECIPE = Recipe(
    batch_size=64,  # 16 sequences x 4 micro-batches
    context=1_024,
    lr=6e-4,
    warmup=2_000,
    schedule="cosine",
    weight_decay=0.1,
    clip=1.0,
)


def _llama(n_layers: int, width: int, n_heads: int, mlp_hidden: int) -> ModelConfig:
    return ModelConfig(n_layers=n_layers, width=width, n_heads=n_heads, mlp_hidden=mlp_hidden)


PRESETS: dict[str, Preset] = {
    "llama-138m": Preset(_llama(12, 768, 12, 3_072), _LLAMA_RECIPE, 137_841_408, "S3"),
    "llama-350m": Preset(_llama(24, 1_024, 16, 2_944), _LLAMA_RECIPE, 350_536_704, "S3"),
    "llama-700m": Preset(_llama(32, 1_280, 20, 3_648), _LLAMA_RECIPE, 699_024_640, "S3"),
}
