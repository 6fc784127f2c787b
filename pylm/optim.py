"""Optimizers and learning rate: AdamW, or Muon with AdamW, and the schedule as a function of progress."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from pylm.config import OptimizerConfig, ScheduleConfig
from pylm.models.build import Decoder
from pylm.models.layers import BatchedLinear, Embedding, Linear
from pylm.muon import Muon


def build_optimizers(model: Decoder, config: OptimizerConfig, dtype: str = "float32") -> list[Optimizer]:
    """The optimizers that together update every parameter once; each group has its peak rate under "peak_lr".

    `dtype` is what the run computes in, for Muon's products; weights and moments are the parameters' own.

    AdamW is fused (torch's default on a CPU is a Python loop) and decays tensors of two or more dimensions, embeddings
    among them as in GPT-2's recipe, but no norms and biases. With `muon` the matrices inside the blocks are Muon's.
    """
    matrices = _block_matrices(model) if config.name == "muon" else []
    optimizers: list[Optimizer] = []
    if matrices:
        momentum, n_iterations = config.muon_momentum, config.muon_iterations
        arithmetic = getattr(torch, dtype)
        optimizers.append(
            Muon(matrices, config.muon_lr, momentum, config.weight_decay, n_iterations, arithmetic)
        )
    taken = {id(parameter) for parameter, _ in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    tables = {id(module.weight) for module in model.modules() if isinstance(module, Embedding)}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.dim() >= 2 and id(p) not in tables]},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
        {"params": [p for p in rest if id(p) in tables], "lr": config.embedding_lr or config.lr},
    ]
    for group in groups:
        group.setdefault("weight_decay", config.weight_decay)
    groups = [group for group in groups if group["params"]]
    optimizers.append(AdamW(groups, config.lr, (config.beta1, config.beta2), config.eps, fused=True))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: Sequence[Optimizer], factor: float) -> None:
    """Set the rate of every group to `factor` of its peak; called before the step it is for."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def learning_rate_factor(warm: float, progress: float, config: ScheduleConfig) -> float:
    """The part of the peak rate for a step that is `progress` (0 to 1) through its schedule.

    `warm`, 0 to 1, is how far the linear warm-up has come; its first step is above zero and below the peak.
    """
    remaining = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "wsd": min(1.0, (1 - progress) / (1 - config.flat)),
        "constant": 1.0,
    }[config.kind]
    return warm * (config.final_fraction + (1 - config.final_fraction) * remaining)


def _block_matrices(model: Decoder) -> list[tuple[torch.nn.Parameter, tuple[int, ...]]]:
    """The weights of the blocks' linear layers, with the sizes of the matrices each one stacks."""
    found: list[tuple[torch.nn.Parameter, tuple[int, ...]]] = []
    for layer in model.blocks.modules():
        if isinstance(layer, Linear):
            found.append((layer.get_parameter("weight"), layer.parts))
        elif isinstance(layer, BatchedLinear):
            found.append((layer.get_parameter("weight"), (layer.n_out,)))
    return found
