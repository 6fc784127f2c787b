"""The GPU's kernel for a block of logits: the losses and gradients of its rows. Imported where Triton is.

One program a row. Its first pass over the row keeps a running maximum and a sum of exponentials (Milakov and
Gimelshein 2018), the second writes the gradient, and mostly finds the row in the cache.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, N_WARPS = 4_096, 8  # columns at a time


def each_row(
    logits_RW: Tensor, bias_V: Tensor | None, targets_R: Tensor, n_ids: int, *, gradient: bool
) -> Tensor:
    """See pylm.logits. `logits_RW` has its columns side by side."""
    losses_R = torch.empty(len(logits_RW), dtype=torch.float32, device=logits_RW.device)
    # Where Triton starts it; the tensors' GPU need not be the current one.
    with torch.cuda.device_of(logits_RW):  # type: ignore[no-untyped-call]
        _each_row[(len(logits_RW),)](
            logits_RW,
            logits_RW.stride(0),
            logits_RW.shape[1],
            bias_V,
            targets_R,
            losses_R,
            n_ids,
            gradient,
            BLOCK,
            num_warps=N_WARPS,
        )
    return losses_R


@triton.jit  # type: ignore[untyped-decorator]
def _each_row(  # type: ignore[no-untyped-def]  # of Triton's types
    logits_ptr,
    row_stride,
    n_columns,
    bias_ptr,
    targets_ptr,
    losses_ptr,
    n_ids,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * row_stride
    target = tl.load(targets_ptr + row)
    largest = -float("inf")
    total = 0.0
    for begin in range(0, n_ids, BLOCK):
        columns = begin + tl.arange(0, BLOCK)
        logits = tl.load(row_ptr + columns, mask=columns < n_ids, other=-float("inf")).to(tl.float32)
        if bias_ptr is not None:
            logits += tl.load(bias_ptr + columns, mask=columns < n_ids, other=0.0)
        new = tl.maximum(largest, tl.max(logits, 0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(logits - new), 0)
        largest = new
    loss = 0.0
    valid = target >= 0
    if valid:
        chosen = tl.load(row_ptr + target).to(tl.float32)
        if bias_ptr is not None:
            chosen += tl.load(bias_ptr + target)
        loss = largest - chosen + tl.log(total)
    tl.store(losses_ptr + row, loss)
    if GRADIENT:
        factor = tl.where(valid, 1.0 / total, 0.0)
        for begin in range(0, n_columns, BLOCK):
            columns = begin + tl.arange(0, BLOCK)
            logits = tl.load(row_ptr + columns, mask=columns < n_ids, other=-float("inf")).to(tl.float32)
            if bias_ptr is not None:
                logits += tl.load(bias_ptr + columns, mask=columns < n_ids, other=0.0)
            grad = tl.exp(logits - largest) * factor - tl.where(valid & (columns == target), 1.0, 0.0)
            tl.store(row_ptr + columns, grad.to(logits_ptr.dtype.element_ty), mask=columns < n_columns)
