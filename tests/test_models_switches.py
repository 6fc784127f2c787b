"""Every family with every norm, kind of positions and grouping of queries: causal, and cached as uncached."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pylm.models.build import build_model
from pylm.models.config import NORM_KINDS, NORMS, POSITIONS, ModelConfig
from pylm.models.presets import find_preset

pytestmark = pytest.mark.usefixtures("one_thread")

CONTEXT = 24
SIZES = {"vocab_size": 40, "max_context": CONTEXT, "width": 16, "n_heads": 4, "n_layers": 2, "dropout": 0.0}
# Weights large enough that what a token sees matters.
SIZES |= {"init": "normal", "init_std": 0.3}

FAMILIES = {
    "transformer": dataclasses.replace(find_preset("stories-22.7m").model, **SIZES, mlp_hidden=24),
    "compressed": dataclasses.replace(
        find_preset("compressed-373m").model, **SIZES, mlp_hidden=24, proj_ratio=4, num_keep_boundary_chunk=1
    ),
    "tiny": dataclasses.replace(find_preset("tiny-67k").model, **SIZES),
    "stacks": dataclasses.replace(find_preset("stacks-577m").model, **SIZES, n_stacks=2),
}

# Grouped queries and normalised heads, where a family has them.
GROUPS: dict[str, list[dict[str, Any]]] = {
    "transformer": [{}, {"n_kv_heads": 2}, {"n_kv_heads": 1, "qk_norm": True}],
    "compressed": [{}, {"qk_norm": True}],
    "tiny": [{}, {"n_kv_heads": 2, "qk_norm": True}],
    "stacks": [{}, {"n_kv_heads": 2}],
}


def combinations() -> Iterator[tuple[str, ModelConfig]]:
    """All that the families can be; what one cannot be is refused by its config, and tested elsewhere."""
    for family, norm, kind, positions in itertools.product(FAMILIES, NORMS, NORM_KINDS, POSITIONS):
        fixed = FAMILIES[family]
        if (family == "tiny" and norm != "post") or (family == "stacks" and (norm, kind) != ("pre", "layer")):
            continue
        if norm == "none" and kind != "rms":
            continue
        for changes in GROUPS[family]:
            config = dataclasses.replace(fixed, norm=norm, norm_kind=kind, positions=positions, **changes)
            yield f"{family}-{norm}-{kind}-{positions}-{list(changes.values())}", config


COMBINATIONS = dict(combinations())


@pytest.mark.parametrize("config", COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_a_combination_is_causal_and_cached_as_uncached(config: ModelConfig) -> None:
    model = build_model(config).eval()
    tokens = torch.randint(config.vocab_size, (2, CONTEXT), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = model(tokens)
        for t in (1, 9, 18, CONTEXT - 1):
            changed = torch.cat((tokens[:, :t], (tokens[:, t:] + 1) % config.vocab_size), dim=1)
            moved = (model(changed) - whole).abs().amax((0, 2))
            assert moved[:t].max() == 0
            assert moved[t:].min() > 1e-4
        cache = model.new_cache(2)
        parts = [model(part, cache) for part in tokens.split([6, 1, 7, 1, 1, 4, 1, 1, 1, 1], dim=1)]
    assert cache.length == CONTEXT
    assert (torch.cat(parts, dim=1) - whole).abs().max() <= 1e-5 * whole.abs().max()
