"""The training loss: cross entropy in nats, summed so that the caller divides by the targets of a whole step."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.models.build import Decoder

# Axes: B sequences, T positions, V vocabulary.


def summed_cross_entropy(model: Decoder, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Sum over all targets of -ln p(target), a 0-d float32 tensor.

    tokens_BT and targets_BT are int64 ids. Summing in float32, not averaging, lets micro-batches of any size add up to
    the gradient of the whole batch after one division by its number of targets.
    """
    logits_BTV = model(tokens_BT)
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="sum")


@torch.no_grad()
def target_losses(model: Decoder, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """-ln p of every target, float32 (B, T); -1 among the targets is skipped and gives 0."""
    logits_BTV = model(tokens_BT)
    losses = F.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="none", ignore_index=-1
    )
    return losses.view_as(targets_BT)
