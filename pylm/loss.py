"""The loss head: cross entropy from features, a block of rows at a time, so that the logits never exist at once.

With a vocabulary of 200,000 the logits of 3,200 tokens are 2.4 GiB and their gradient as much again. Here a block's
logits become its loss and its gradients in the forward pass, and are overwritten by the next block's: the three matrix
products are the same, the memory is one block.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pylm.logits import IGNORED, to_gradients, to_losses
from pylm.models.build import Decoder
from pylm.models.documents import Documents
from pylm.models.products import arithmetic_dtype, is_faster, times_transposed

__all__ = ["IGNORED", "head_loss", "summed_cross_entropy", "target_losses"]

# Axes: B sequences, T positions, N = B x T rows, R rows of a block, D features, V vocabulary, W = V and what pads it.

# Of a block's logits, as they come out of the product. Each block adds to the matrix's whole gradient, so that small
# ones spend their time there; of large ones the memory counts.
BLOCK_BYTES = {"cpu": 64 << 20, "cuda": 384 << 20}
MIN_ROWS = 128  # of a block, however large the vocabulary
# Of the matrix's gradient, made at a time where a product cannot add to what is there.
PIECE_BYTES = 4 << 20
# Of a tensor at most that a CPU's head keeps for the next step: pages that a process has had need not be cleared again,
# which took a fortieth of a step with V 32,000.
KEPT_BYTES = 64 << 20
# The fast kernels of a GPU's products in 16 bits ask for rows that begin at multiples of 16 bytes.
PADDED_TO = 64


def summed_cross_entropy(
    model: Decoder, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None
) -> Tensor:
    """Sum over all targets of -ln p(target): a 0-d float32 tensor, differentiable once.

    tokens_BT and targets_BT are int64 ids, IGNORED targets count nothing; documents_BT is the document of each token,
    where attention is to stay in it. A sum, not a mean: micro-batches of any size
    add up to the whole batch's gradient after one division by its number of targets.
    """
    x_BTD, head_VD = model.features_and_head(tokens_BT, _documents(documents_BT))
    return head_loss(x_BTD.flatten(0, 1), head_VD, model.head_bias, targets_BT.flatten())


def head_loss(x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor) -> Tensor:
    """The same from features and the head's matrix: the sum of the cross entropies of x @ W.T + b, float32."""
    loss: Tensor = _HeadLoss.apply(x_ND, weight_VD, bias_V, targets_N)
    return loss


@torch.no_grad()
def target_losses(
    model: Decoder, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None
) -> Tensor:
    """-ln p of every target, float32 (B, T); 0 for IGNORED ones."""
    x_ND = model.features(tokens_BT, documents=_documents(documents_BT)).flatten(0, 1)
    dtype = arithmetic_dtype(x_ND)
    with _no_autocast(x_ND.device.type):
        head = _Head(model.head_weight, model.head_bias, dtype)
        return head.losses(x_ND, targets_BT.flatten()).view_as(targets_BT)


def _documents(documents_BT: Tensor | None) -> Documents | None:
    return None if documents_BT is None else Documents(documents_BT)


class _Head:
    """The head's matrix and bias as a product takes them: in the product's dtype, perhaps with rows of zeros."""

    def __init__(self, weight_VD: Tensor, bias_V: Tensor | None, dtype: torch.dtype) -> None:
        self.n_ids, self.dtype, self.weight_dtype = len(weight_VD), dtype, weight_VD.dtype
        self.bias_V = bias_V
        if weight_VD.is_cuda and dtype != weight_VD.dtype and self.n_ids % PADDED_TO:
            padded = self.n_ids + -self.n_ids % PADDED_TO
            self.matrix_WD = weight_VD.new_zeros((padded, weight_VD.shape[1]), dtype=dtype)
            self.matrix_WD[: self.n_ids] = weight_VD
        elif dtype == weight_VD.dtype:
            self.matrix_WD = weight_VD
        else:
            self.matrix_WD = _rooms.take("matrix", weight_VD, weight_VD.shape, dtype).copy_(weight_VD)

    def blocks(self, x_ND: Tensor, targets_N: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows in blocks whose logits are at most BLOCK_BYTES, but at least MIN_ROWS rows."""
        row_bytes = self.dtype.itemsize * len(self.matrix_WD)
        n_rows = max(MIN_ROWS, BLOCK_BYTES.get(x_ND.device.type, 1 << 28) // row_bytes)
        return zip(torch.split(x_ND, n_rows), torch.split(targets_N, n_rows), strict=True)

    def logits(self, x_RD: Tensor) -> Tensor:
        """Multiply, without the bias: (R, W) in the product's dtype, until the next block's."""
        if self.dtype == torch.float32:
            return times_transposed(x_RD, self.matrix_WD)
        shape = (len(x_RD), len(self.matrix_WD))
        return torch.mm(x_RD, self.matrix_WD.T, out=_rooms.take("logits", x_RD, shape, self.dtype))

    def losses(self, x_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Return the cross entropy of each row, float32 (N), without gradients."""
        return torch.cat(
            [
                to_losses(self.logits(x_RD.to(self.dtype)), self.bias_V, targets_R, self.n_ids)
                for x_RD, targets_R in self.blocks(x_ND, targets_N)
            ]
        )

    def features_gradient(self, grad_RW: Tensor, out_RD: Tensor) -> None:
        """Write what the logits' gradient is at the features."""
        if grad_RW.dtype != out_RD.dtype or is_faster(grad_RW, self.matrix_WD):
            out_RD.copy_(times_transposed(grad_RW, self.matrix_WD.T))
        else:
            torch.mm(grad_RW, self.matrix_WD, out=out_RD)

    def matrix_gradient(self, grad_RW: Tensor, x_RD: Tensor, before_WD: Tensor | None) -> Tensor:
        """Return what the logits' gradient is at the matrix, in float32, added to that of the blocks before."""
        if grad_RW.is_cuda and grad_RW.dtype != torch.float32:
            if before_WD is None:
                return torch.mm(grad_RW.T, x_RD, out_dtype=torch.float32)
            return torch.addmm(before_WD, grad_RW.T, x_RD, out_dtype=torch.float32, out=before_WD)
        if grad_RW.dtype == torch.float32:
            if before_WD is None:
                return times_transposed(grad_RW.T, x_RD.T)
            if not is_faster(grad_RW, x_RD):
                return before_WD.addmm_(grad_RW.T, x_RD)
        n_rows = max(1, PIECE_BYTES // (x_RD.shape[1] * x_RD.itemsize))
        shape = (grad_RW.shape[1], x_RD.shape[1])
        sum_WD = x_RD.new_empty(shape, dtype=torch.float32) if before_WD is None else before_WD
        for sum_PD, grad_PR in zip(torch.split(sum_WD, n_rows), torch.split(grad_RW.T, n_rows), strict=True):
            product_PD = times_transposed(grad_PR, x_RD.T)
            if before_WD is None:
                sum_PD.copy_(product_PD)
            else:
                sum_PD += product_PD
        return sum_WD


class _Rooms(threading.local):
    """Memory of this thread's head by what it is for; on a CPU, where that is not too much, kept for the next step."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    @torch.inference_mode(False)  # what an evaluation makes serves training too
    def take(self, name: str, like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of any content, on the device of `like`: what had this name before is overwritten."""
        n_numbers = math.prod(shape)
        if like.device.type != "cpu" or n_numbers * dtype.itemsize > KEPT_BYTES:
            return like.new_empty(shape, dtype=dtype)
        kept = self._kept.get(name)
        if kept is None or kept.dtype != dtype or kept.numel() < n_numbers:
            kept = self._kept[name] = torch.empty(n_numbers, dtype=dtype)
        return kept[:n_numbers].view(shape)


_rooms = _Rooms()


class _HeadLoss(torch.autograd.Function):
    """Summed cross entropy of x @ W.T + b; the gradients are made in the forward pass, block by block."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor
    ) -> Tensor:
        # At the time a Function's forward runs, autocast is as it was where the Function was called.
        dtype = arithmetic_dtype(x_ND)
        with _no_autocast(x_ND.device.type):
            head = _Head(weight_VD, bias_V, dtype)
            if not any(ctx.needs_input_grad):
                return head.losses(x_ND, targets_N).sum()
            return _HeadLoss._with_gradients(ctx, head, x_ND, targets_N)

    @staticmethod
    def _with_gradients(ctx: Any, head: _Head, x_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Multiply in the head's dtype; what is added up is float32."""
        total = torch.zeros((), device=x_ND.device)
        grad_x_ND = torch.empty_like(x_ND)
        grad_matrix_WD = grad_bias_V = None
        begin = 0
        for x_RD, targets_R in head.blocks(x_ND, targets_N):
            x_RD = x_RD.to(head.dtype)
            grad_RW = head.logits(x_RD)
            total += to_gradients(grad_RW, head.bias_V, targets_R, head.n_ids).sum()
            head.features_gradient(grad_RW, grad_x_ND[begin : begin + len(x_RD)])
            grad_matrix_WD = head.matrix_gradient(grad_RW, x_RD, grad_matrix_WD)
            if head.bias_V is not None:
                of_block_V = grad_RW[:, : head.n_ids].sum(0, dtype=torch.float32)
                grad_bias_V = of_block_V if grad_bias_V is None else grad_bias_V + of_block_V
            begin += len(x_RD)
            del grad_RW  # before the next block's logits are there
        assert grad_matrix_WD is not None
        # Neither by save_for_backward nor as a view: autograd adds a tied embedding's gradient in place only to what
        # nothing else holds.
        ctx.gradients = grad_x_ND, grad_matrix_WD[: head.n_ids].data, grad_bias_V
        ctx.dtype = head.weight_dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grad_outputs
        if ctx.gradients is None:
            raise RuntimeError("the loss is differentiable once")
        (grad_x_ND, grad_weight_VD, grad_bias_V), ctx.gradients = ctx.gradients, None
        # In place: these tensors are this call's own, and the weight's is as large as the embedding.
        grad_bias_V = None if grad_bias_V is None else grad_bias_V.mul_(scale).to(ctx.dtype)
        return grad_x_ND.mul_(scale), grad_weight_VD.mul_(scale).to(ctx.dtype), grad_bias_V, None


def _no_autocast(device: str) -> AbstractContextManager[object]:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
