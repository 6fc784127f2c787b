"""Optimizer and learning rate: AdamW with decay on matrices only, and the schedule as a function of progress."""

import math

import torch
from torch import nn

from pylm.config import OptimizerConfig, ScheduleConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW over two groups: weight decay for tensors of two or more dimensions, none for norms and biases.

    Embeddings are matrices and decay, as in GPT-2's and nanoGPT's recipes. The fused step matters on a CPU too, where
    torch's default is a Python loop over tensors.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group; called before the step it is for."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def learning_rate(step: int, progress: float, peak: float, config: ScheduleConfig) -> float:
    """The rate of step `step` (from 0) of a run that is `progress` (0 to 1) through its schedule.

    The first `warmup` steps rise linearly, the first of them already above zero and below the peak.
    """
    warm = min(1.0, (step + 1) / (config.warmup + 1))
    remaining = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "constant": 1.0,
    }[config.kind]
    return peak * warm * (config.final_fraction + (1 - config.final_fraction) * remaining)
