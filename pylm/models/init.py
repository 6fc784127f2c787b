"""How parameters start: one rule a source, drawn from a seed.

normal  every matrix N(0, init_std) (S1, S3)
gpt2    the same, but 1 / sqrt(2 x layers) of it where a layer writes into the residual stream
        (Radford et al. 2019; S0)
xavier  a matrix N(0, 2 / (inputs + outputs)), the embedding N(0, 1), both cut at 3 deviations (S4)
torch   what torch's own modules do: U(-1, 1) / sqrt(inputs), biases too; the embedding N(0, 1) (S2)

Biases start at 0 (but for torch), gains at 1 (but for `norm_gains = "normal"`).
"""

import math

import torch
from torch import Tensor, nn

from pylm.models.config import ModelConfig
from pylm.models.layers import Embedding, LayerNorm, Linear, RMSNorm


@torch.no_grad()
def initialise(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill every parameter of `model`, in the order of its modules."""
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    for module in model.modules():
        if isinstance(module, Linear):
            for weight in torch.split(module.weight, list(module.parts)):
                _fill_matrix(weight, module.residual, config, generator)
            if module.bias is not None:
                _fill_bias(module.bias, module.in_features, config, generator)
        elif isinstance(module, Embedding):
            _fill_embedding(module.weight, config, generator)
        elif isinstance(module, (RMSNorm, LayerNorm)):
            _fill_gain(module.weight, config, generator)
            if isinstance(module, LayerNorm):
                module.bias.zero_()


def _fill_matrix(weight: Tensor, residual: bool, config: ModelConfig, generator: torch.Generator) -> None:
    """Fill one matrix (outputs, inputs)."""
    n_out, n_in = weight.shape[-2:]
    if config.init == "xavier":
        _cut_normal(weight, math.sqrt(2 / (n_in + n_out)), generator)
    elif config.init == "torch":
        weight.uniform_(-1 / math.sqrt(n_in), 1 / math.sqrt(n_in), generator=generator)
    else:
        shrink = math.sqrt(2 * config.n_layers) if residual and config.init == "gpt2" else 1.0
        weight.normal_(0, config.init_std / shrink, generator=generator)


def _fill_bias(bias: Tensor, n_in: int, config: ModelConfig, generator: torch.Generator) -> None:
    if config.init == "torch":
        bias.uniform_(-1 / math.sqrt(n_in), 1 / math.sqrt(n_in), generator=generator)
    else:
        bias.zero_()


def _fill_embedding(weight: Tensor, config: ModelConfig, generator: torch.Generator) -> None:
    if config.init == "xavier":
        _cut_normal(weight, 1.0, generator)
    else:
        weight.normal_(0, 1.0 if config.init == "torch" else config.init_std, generator=generator)


def _fill_gain(gain: Tensor, config: ModelConfig, generator: torch.Generator) -> None:
    if config.norm_gains == "normal":
        gain.normal_(0, config.init_std, generator=generator)
    else:
        gain.fill_(1.0)


def _cut_normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    nn.init.trunc_normal_(weight, 0, std, -3 * std, 3 * std, generator=generator)
