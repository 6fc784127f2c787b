"""What the loss head makes of a block of logits, in place: each row's loss and the gradient of its logits.

On a GPU one kernel (pylm.logits_kernel) reads the logits twice and writes them once; on a CPU that has the instructions
the extension does it, row by row. Elsewhere torch does, by a few rows at a time: its passes then
find them in the processor's cache. 1,024 rows, V 32,000, bfloat16, one core of an EPYC: 47 ms by torch's chunks, 130
with the whole block in each pass; on a slower one 112 by chunks and 28 by the extension.
"""

from functools import cache

import torch
from torch import Tensor

from pylm import _bpe, kernels

# Axes: R rows, V vocabulary, W columns of the block: V and perhaps some that pad it, C rows of a chunk.

IGNORED = -1  # a target that is none: its loss and its gradient are 0

# Of float32 numbers for each of torch's threads: what its own cache holds.
CHUNK_BYTES = 1 << 20


def to_losses(logits_RW: Tensor, bias_V: Tensor | None, targets_R: Tensor, n_ids: int) -> Tensor:
    """-ln softmax(logits + bias) at each target, float32 (R); IGNORED ones lose 0.

    logits_RW: 16 or 32 bits, overwritten; the columns from `n_ids` on are not looked at. targets_R: int64.
    """
    return _each_row(logits_RW, bias_V, targets_R, n_ids, gradient=False)


def to_gradients(logits_RW: Tensor, bias_V: Tensor | None, targets_R: Tensor, n_ids: int) -> Tensor:
    """The same; the logits become the gradients of the losses' sum, and 0 in the columns from `n_ids` on."""
    return _each_row(logits_RW, bias_V, targets_R, n_ids, gradient=True)


def _each_row(
    logits_RW: Tensor, bias_V: Tensor | None, targets_R: Tensor, n_ids: int, *, gradient: bool
) -> Tensor:
    if logits_RW.is_cuda and _has_triton():
        from pylm.logits_kernel import each_row

        return each_row(logits_RW, bias_V, targets_R, n_ids, gradient=gradient)
    if kernels.can_take(logits_RW):
        return by_extension(logits_RW, bias_V, targets_R, n_ids, gradient=gradient)
    return by_chunks(logits_RW, bias_V, targets_R, n_ids, gradient=gradient)


@cache
def _has_triton() -> bool:
    """Whether the compiler of the kernel is there: torch for CUDA brings it on Linux."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def by_extension(
    logits_RW: Tensor, bias_V: Tensor | None, targets_R: Tensor, n_ids: int, *, gradient: bool
) -> Tensor:
    """By the extension, a row at a time; float32 or bfloat16 on a CPU, its columns side by side."""
    losses_R = _bpe.losses_of_rows(
        kernels.as_array(logits_RW),
        n_ids,
        # A copy: what numpy looks at can never be resized again, and FSDP empties its parameters so.
        None if bias_V is None else bias_V.detach().to(torch.float32, copy=True).numpy(),
        targets_R.numpy(),
        gradient,
        torch.get_num_threads(),
    )
    return torch.from_numpy(losses_R)


def by_chunks(
    logits_RW: Tensor, bias_V: Tensor | None, targets_R: Tensor, n_ids: int, *, gradient: bool
) -> Tensor:
    """By torch's operations, on some rows at a time."""
    n_rows = max(1, torch.get_num_threads() * CHUNK_BYTES // (4 * n_ids))
    losses = []
    for logits_CW, targets_C in zip(
        torch.split(logits_RW, n_rows), torch.split(targets_R, n_rows), strict=True
    ):
        logits_CV = logits_CW[:, :n_ids].float()  # of float32, the block itself
        if bias_V is not None:
            logits_CV += bias_V
        losses_C, sum_C = _softmax(logits_CV, targets_C)
        losses.append(losses_C)
        if gradient:
            grad_CV = _gradients(logits_CV, sum_C, targets_C)
            if logits_CW.dtype != torch.float32:
                logits_CW[:, :n_ids] = grad_CV
    if gradient:
        logits_RW[:, n_ids:] = 0
    return torch.cat(losses)


def _softmax(logits_CV: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """-ln p of each target (0 for ignored ones), and each row's sum of the softmax that replaces its logits.

    torch's softmax takes half the time of its exponentials alone (they are MKL's, of the highest accuracy), but adds up
    a long row in one go, to 7e-6 of 200,000: so the sum is made again.
    """
    chosen_C = logits_CV.gather(1, targets_C.clamp(min=0)[:, None])[:, 0]
    largest_C = logits_CV.amax(-1)
    torch.softmax(logits_CV, -1, out=logits_CV)
    sum_C = logits_CV.sum(-1)
    log_sum_C = (sum_C / logits_CV.amax(-1)).log()  # the largest one is 1 over the sum that torch has made
    return (largest_C - chosen_C + log_sum_C).masked_fill_(targets_C == IGNORED, 0.0), sum_C


def _gradients(softmax_CV: Tensor, sum_C: Tensor, targets_C: Tensor) -> Tensor:
    """Softmax, each row divided by its sum, minus one at the target, in place; rows of ignored targets are zero."""
    valid_C = (targets_C != IGNORED).float()
    grad_CV = softmax_CV.mul_((valid_C / sum_C)[:, None])
    return grad_CV.scatter_add_(1, targets_C.clamp(min=0)[:, None], -valid_C[:, None])
