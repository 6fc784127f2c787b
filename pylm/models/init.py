"""How parameters start: one rule a source, drawn from a seed.

normal  every matrix N(0, init_std) (S1, S3)
gpt2    the same, but 1 / sqrt(2 x layers) of it where a layer writes into the residual stream
        (Radford et al. 2019; S0)
xavier  a matrix N(0, 2 / (inputs + outputs)), the embedding N(0, 1), both cut at 3 deviations (S4)
torch   what torch's own modules do: U(-1, 1) / sqrt(inputs), biases too; q, k, v Xavier-uniform and attention's
        biases 0; the embedding N(0, 1) (S2)
zero_out  a matrix N(0, 1 / inputs), zero where it writes into the residual stream and in a head of its own, so that
        every block starts as the identity and every token as equally likely; the embedding N(0, 1)

Biases start at 0 (but for torch), gains at 1 (but for `norm_gains = "normal"`).
"""

import math

import torch
from torch import Tensor, nn

from pylm.models.config import ModelConfig
from pylm.models.layers import (
    BatchedLayerNorm,
    BatchedLinear,
    Embedding,
    EmbeddingConvolution,
    LayerNorm,
    Linear,
    RMSNorm,
    Role,
)


@torch.no_grad()
def initialise(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill every parameter of `model`, in the order of its modules."""
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    for module in model.modules():
        if isinstance(module, Linear):
            for weight in torch.split(module.weight, list(module.parts)):
                _fill_matrix(weight, module.role, config, generator)
            _fill_bias(module.bias, module.in_features, module.role, config, generator)
        elif isinstance(module, BatchedLinear):
            for weight in module.weight:
                _fill_matrix(weight, module.role, config, generator)
            _fill_bias(module.bias, module.n_in, module.role, config, generator)
        elif isinstance(module, Embedding):
            _fill_embedding(module.weight, config, generator)
        elif isinstance(module, EmbeddingConvolution):
            module.weight.fill_(0.3)
            module.weight[: len(module.weight) // module.n_positions].fill_(1.0)
        elif isinstance(module, (RMSNorm, LayerNorm, BatchedLayerNorm)):
            _fill_gain(module.weight, config, generator)
            if not isinstance(module, RMSNorm):
                module.bias.zero_()


def _fill_matrix(weight: Tensor, role: Role, config: ModelConfig, generator: torch.Generator) -> None:
    """Fill one matrix (outputs, inputs)."""
    n_out, n_in = weight.shape
    if config.init == "xavier":
        _cut_normal(weight, math.sqrt(2 / (n_in + n_out)), generator)
    elif config.init == "torch":
        # nn.MultiheadAttention draws q, k and v as one Xavier-uniform matrix of 3 x width outputs.
        bound = math.sqrt(6 / (n_in + 3 * n_in)) if role == "qkv" else 1 / math.sqrt(n_in)
        weight.uniform_(-bound, bound, generator=generator)
    elif config.init == "zero_out":
        weight.normal_(0, 1 / math.sqrt(n_in), generator=generator)
        if role in ("attention_out", "mlp_out", "head"):
            weight.zero_()
    else:
        shrinks = config.init == "gpt2" and role in ("attention_out", "mlp_out")
        std = config.init_std / math.sqrt(2 * config.n_layers) if shrinks else config.init_std
        weight.normal_(0, std, generator=generator)


def _fill_bias(
    bias: Tensor | None, n_in: int, role: Role, config: ModelConfig, generator: torch.Generator
) -> None:
    if bias is None:
        return
    if config.init == "torch" and role not in ("qkv", "attention_out"):
        bias.uniform_(-1 / math.sqrt(n_in), 1 / math.sqrt(n_in), generator=generator)
    else:
        bias.zero_()


def _fill_embedding(weight: Tensor, config: ModelConfig, generator: torch.Generator) -> None:
    if config.init == "xavier":
        _cut_normal(weight, 1.0, generator)
    else:
        weight.normal_(
            0, 1.0 if config.init in ("torch", "zero_out") else config.init_std, generator=generator
        )


def _fill_gain(gain: Tensor, config: ModelConfig, generator: torch.Generator) -> None:
    if config.norm_gains == "normal":
        gain.normal_(0, config.init_std, generator=generator)
    else:
        gain.fill_(1.0)


def _cut_normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    nn.init.trunc_normal_(weight, 0, std, -3 * std, 3 * std, generator=generator)
