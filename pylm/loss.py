"""The loss head: cross entropy from features, a block of rows at a time, so that the logits never exist at once.

With a vocabulary of 200,000 the logits of 3,200 tokens are 2.4 GiB and their gradient as much again. Here a block's
logits become its loss and its gradients in the forward pass, and are overwritten by the next block's: the three matrix
products are the same, the memory is one block.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pylm.models.build import Decoder
from pylm.models.documents import Documents
from pylm.models.products import is_faster, times_transposed

# Axes: B sequences, T positions, N = B x T rows, R rows of a block, D features, V vocabulary.

# Of float32 logits. Each block adds to the matrix's whole gradient, so small ones spend their time there; but memory of
# 32 MiB and more comes fresh from the system with each block, page by page: 1,024 rows x 384, V 32,000, bfloat16, one
# core: 422 ms by 8 MiB, 328 by 31, 365 by 128. A GPU needs 1,024 rows and more.
BLOCK_BYTES = {"cpu": 31 << 20, "cuda": 1 << 30}
MIN_ROWS = 128  # of a block, however large the vocabulary
MATRIX_ROWS = (
    16_384  # of the matrix's gradient, that are made at a time where a product cannot add to what is there
)
IGNORED = -1  # a target that is none: its loss and its gradient are 0


def summed_cross_entropy(
    model: Decoder, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None
) -> Tensor:
    """Sum over all targets of -ln p(target): a 0-d float32 tensor, differentiable once.

    tokens_BT and targets_BT are int64 ids, IGNORED targets count nothing; documents_BT is the document of each token,
    where attention is to stay in it. A sum, not a mean: micro-batches of any size
    add up to the whole batch's gradient after one division by its number of targets.
    """
    x_ND = _features(model, tokens_BT, documents_BT)
    return head_loss(x_ND, model.head_weight, model.head_bias, targets_BT.flatten())


def head_loss(x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor) -> Tensor:
    """The same from features and the head's matrix: the sum of the cross entropies of x @ W.T + b, float32."""
    loss: Tensor = _HeadLoss.apply(x_ND, weight_VD, bias_V, targets_N)
    return loss


@torch.no_grad()
def target_losses(
    model: Decoder, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None
) -> Tensor:
    """-ln p of every target, float32 (B, T); 0 for IGNORED ones."""
    x_ND = _features(model, tokens_BT, documents_BT)
    dtype = _matmul_dtype(x_ND)
    with _no_autocast(x_ND.device.type):
        weight_VD, bias_V = model.head_weight.to(dtype), model.head_bias
        blocks = zip(*_blocks(x_ND.to(dtype), targets_BT.flatten(), weight_VD), strict=True)
        losses = [_losses(_logits(x_RD, weight_VD, bias_V), targets_R)[0] for x_RD, targets_R in blocks]
    return torch.cat(losses).view_as(targets_BT)


def _features(model: Decoder, tokens_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
    documents = None if documents_BT is None else Documents(documents_BT)
    return model.features(tokens_BT, documents=documents).flatten(0, 1)


class _HeadLoss(torch.autograd.Function):
    """Summed cross entropy of x @ W.T + b; the gradients are made in the forward pass, block by block."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor
    ) -> Tensor:
        dtype = _matmul_dtype(x_ND)
        with _no_autocast(x_ND.device.type):
            return _HeadLoss._sum(ctx, x_ND, weight_VD, bias_V, targets_N, dtype)

    @staticmethod
    def _sum(
        ctx: Any,
        x_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        """Multiply in `dtype`; what is added up is float32."""
        needed = any(ctx.needs_input_grad)
        matrix_VD = weight_VD.to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=x_ND.device)
        grad_x_ND = torch.empty_like(x_ND) if needed else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needed else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if needed and bias_V is not None else None
        begin = 0
        for x_RD, targets_R in zip(*_blocks(x_ND, targets_N, weight_VD), strict=True):
            x_RD = x_RD.to(dtype)
            logits_RV = _logits(x_RD, matrix_VD, bias_V)
            losses_R, sum_R = _losses(logits_RV, targets_R)
            total += losses_R.sum()
            if grad_x_ND is not None and grad_weight_VD is not None:
                grad_RV = _grad_logits(logits_RV, sum_R, targets_R)
                low_RV = grad_RV.to(dtype)
                rows = slice(begin, begin + len(x_RD))
                if dtype == x_ND.dtype == torch.float32 and not is_faster(low_RV, matrix_VD):
                    torch.mm(low_RV, matrix_VD, out=grad_x_ND[rows])
                    grad_weight_VD.addmm_(low_RV.T, x_RD)
                else:
                    grad_x_ND[rows] = times_transposed(low_RV, matrix_VD.T)
                    parts = (torch.split(of_V, MATRIX_ROWS) for of_V in (grad_weight_VD, low_RV.T))
                    for grad_PD, low_PR in zip(*parts, strict=True):
                        grad_PD += times_transposed(low_PR, x_RD.T)
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
    """The rows in blocks whose logits are at most BLOCK_BYTES, but at least MIN_ROWS rows."""
    n_rows = max(MIN_ROWS, BLOCK_BYTES.get(x_ND.device.type, 1 << 28) // (4 * len(weight_VD)))
    return torch.split(x_ND, n_rows), torch.split(targets_N, n_rows)


def _logits(x_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """The logits in float32, of a product in the inputs' dtype."""
    logits_RV = times_transposed(x_RD, weight_VD).float()
    return logits_RV if bias_V is None else logits_RV.add_(bias_V)


def _matmul_dtype(x_ND: Tensor) -> torch.dtype:
    """Autocast's dtype where it is on: the head is a product like any other."""
    device = x_ND.device.type
    # At the time a Function's forward runs, autocast is as it was where the Function was called.
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_ND.dtype


def _no_autocast(device: str) -> AbstractContextManager[object]:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _losses(logits_RV: Tensor, targets_R: Tensor) -> tuple[Tensor, Tensor]:
    """-ln p of each target (0 for ignored ones), and each row's sum of the exponentials that replace its logits.

    In place, and each row less its largest logit: what torch.logsumexp computes on copies.
    """
    chosen_R = logits_RV.gather(1, targets_R.clamp(min=0)[:, None])[:, 0]
    largest_R = logits_RV.amax(-1)
    sum_R = logits_RV.sub_(largest_R[:, None]).exp_().sum(-1)
    return (largest_R - chosen_R + sum_R.log()).masked_fill_(targets_R == IGNORED, 0.0), sum_R


def _grad_logits(exponentials_RV: Tensor, sum_R: Tensor, targets_R: Tensor) -> Tensor:
    """Softmax minus one at the target, written over the exponentials; rows of ignored targets are zero."""
    valid_R = (targets_R != IGNORED).float()
    grad_RV = exponentials_RV.mul_((valid_R / sum_R)[:, None])
    return grad_RV.scatter_add_(1, targets_R.clamp(min=0)[:, None], -valid_R[:, None])
