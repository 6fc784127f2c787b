"""The loss head: cross entropy from features, a block of rows at a time, so that the logits never exist at once.

With a vocabulary of 200,000 the logits of 3,200 tokens are 2.4 GiB and their gradient as much again. Here a block's
logits become its loss and its gradients while they are in the cache, in the forward pass, and are overwritten by the
next block's: the three matrix products are the same, the memory is one block, and the passes over it are cheap.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pylm.models.build import Decoder

# Axes: B sequences, T positions, N = B x T rows, R rows of a block, D features, V vocabulary.

BLOCK_BYTES = {
    "cpu": 8 << 20,
    "cuda": 1 << 30,
}  # of float32 logits: a CPU's cache; a GPU needs 1,024 rows and more
IGNORED = -1  # a target that is none: its loss and its gradient are 0


def summed_cross_entropy(model: Decoder, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Sum over all targets of -ln p(target): a 0-d float32 tensor, differentiable once.

    tokens_BT and targets_BT are int64 ids, IGNORED targets count nothing. A sum, not a mean: micro-batches of any size
    add up to the whole batch's gradient after one division by its number of targets.
    """
    x_ND = model.features(tokens_BT).flatten(0, 1)
    loss: Tensor = _HeadLoss.apply(x_ND, model.head_weight, model.head_bias, targets_BT.flatten())
    return loss


@torch.no_grad()
def target_losses(model: Decoder, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """-ln p of every target, float32 (B, T); 0 for IGNORED ones."""
    x_ND = model.features(tokens_BT).flatten(0, 1)
    weight_VD, bias_V = model.head_weight, model.head_bias
    blocks = zip(*_blocks(x_ND, targets_BT.flatten(), weight_VD), strict=True)
    return torch.cat([_losses(_logits(x, weight_VD, bias_V), t)[0] for x, t in blocks]).view_as(targets_BT)


class _HeadLoss(torch.autograd.Function):
    """Summed cross entropy of x @ W.T + b; the gradients are made in the forward pass, block by block."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor
    ) -> Tensor:
        needed = any(ctx.needs_input_grad)
        total = torch.zeros((), dtype=torch.float32, device=x_ND.device)
        grad_x_ND = torch.empty_like(x_ND) if needed else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needed else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if needed and bias_V is not None else None
        begin = 0
        for x_RD, targets_R in zip(*_blocks(x_ND, targets_N, weight_VD), strict=True):
            logits_RV = _logits(x_RD, weight_VD, bias_V)
            losses_R, log_sum_R = _losses(logits_RV, targets_R)
            total += losses_R.sum()
            if grad_x_ND is not None and grad_weight_VD is not None:
                grad_RV = _grad_logits(logits_RV, log_sum_R, targets_R)
                matrix_RV = grad_RV.to(weight_VD.dtype)
                torch.mm(matrix_RV, weight_VD, out=grad_x_ND[begin : begin + len(x_RD)])
                if grad_weight_VD.dtype == x_RD.dtype:
                    grad_weight_VD.addmm_(matrix_RV.T, x_RD)
                else:
                    grad_weight_VD += matrix_RV.T @ x_RD
                if grad_bias_V is not None:
                    grad_bias_V += grad_RV.sum(0)
            begin += len(x_RD)
        ctx.save_for_backward(grad_x_ND, grad_weight_VD, grad_bias_V)
        ctx.dtype = weight_VD.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grad_outputs
        grad_x_ND, grad_weight_VD, grad_bias_V = ctx.saved_tensors
        # In place: these tensors are this call's own, and the weight's is as large as the embedding.
        grad_bias_V = None if grad_bias_V is None else grad_bias_V.mul_(scale).to(ctx.dtype)
        return grad_x_ND.mul_(scale), grad_weight_VD.mul_(scale).to(ctx.dtype), grad_bias_V, None


def _blocks(
    x_ND: Tensor, targets_N: Tensor, weight_VD: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The rows in blocks whose logits are at most BLOCK_BYTES, but at least 16 rows."""
    n_rows = max(16, BLOCK_BYTES.get(x_ND.device.type, 1 << 28) // (4 * len(weight_VD)))
    return torch.split(x_ND, n_rows), torch.split(targets_N, n_rows)


def _logits(x_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    return F.linear(x_RD, weight_VD, bias_V).float()


def _losses(logits_RV: Tensor, targets_R: Tensor) -> tuple[Tensor, Tensor]:
    """-ln p of each target (0 for ignored ones), and the logarithm of each row's sum of exponentials."""
    log_sum_R = logits_RV.logsumexp(-1)
    chosen_R = logits_RV.gather(1, targets_R.clamp(min=0)[:, None])[:, 0]
    return (log_sum_R - chosen_R).masked_fill_(targets_R == IGNORED, 0.0), log_sum_R


def _grad_logits(logits_RV: Tensor, log_sum_R: Tensor, targets_R: Tensor) -> Tensor:
    """Softmax minus one at the target, written over the logits; rows of ignored targets are zero."""
    grad_RV = logits_RV.sub_(log_sum_R[:, None]).exp_()
    ones_R1 = grad_RV.new_ones(len(targets_R), 1)
    grad_RV.scatter_add_(1, targets_R.clamp(min=0)[:, None], -ones_R1)
    return grad_RV.masked_fill_((targets_R == IGNORED)[:, None], 0.0)
