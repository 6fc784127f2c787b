"""From a config to a model, initialised."""

from collections.abc import Callable

import torch

from pylm.models.config import ModelConfig
from pylm.models.decoder import Decoder
from pylm.models.init import initialise
from pylm.models.stacks import Stacks
from pylm.models.tiny import Tiny
from pylm.models.transformer import Transformer

__all__ = ["Decoder", "build_model"]


def build_model(config: ModelConfig, *, seed: int = 0, device: str | torch.device = "cpu") -> Decoder:
    """Build the config's family on `device` with float32 parameters drawn from `seed`.

    On the device "meta" nothing is allocated or drawn: for counts and FLOPs.
    """
    with torch.device(device):
        model = _FAMILIES[config.family](config)
    if torch.device(device).type != "meta":
        initialise(model, config, seed)
    return model


_FAMILIES: dict[str, Callable[[ModelConfig], Decoder]] = {
    "transformer": Transformer,
    "tiny": Tiny,
    "stacks": Stacks,
}
