"""Matrix products in float32 on a CPU, by the faster one of torch's two libraries.

torch multiplies float32 by MKL, which leaves AVX-512 unused on processors of another maker than Intel; oneDNN, which
torch calls for 16 bits only, uses it there. One core of an AMD EPYC with AVX-512, 768 x 128 times 128 x 512: 242
GFLOP/s against 100.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pylm import processor

# Axes: N rows, K features summed over, M outputs; `..` any leading axes.

MIN_ROWS = 32  # below it, as when one token is generated, a call costs more than it saves


def linear(x: Tensor, weight_MK: Tensor, bias_M: Tensor | None) -> Tensor:
    """Multiply x (.., K) by a transposed matrix and add a bias: (.., M)."""
    if torch.compiler.is_compiling():  # inductor chooses for itself
        return F.linear(x, weight_MK, bias_M)
    if is_faster(x, weight_MK) and x.numel() >= MIN_ROWS * x.shape[-1]:
        y: Tensor = _Linear.apply(x, weight_MK, bias_M)
        return y
    return F.linear(x, weight_MK, bias_M)


def times_transposed(a_NK: Tensor, b_MK: Tensor) -> Tensor:
    """Multiply a by b transposed: (N, M). Either may be a view of a transposed matrix. No gradient."""
    return _by_onednn(a_NK, b_MK, None) if is_faster(a_NK, b_MK) else a_NK @ b_MK.T


def of_matrix(grad_NM: Tensor, x_NK: Tensor) -> Tensor:
    """The gradient (M, K) of a matrix that x was multiplied by, for that of the products. No gradient of its own."""
    if is_faster(grad_NM, x_NK) and not processor.halves_avx512():
        # It has one copied first, on one thread: of 768 x 128 and 512, two threads, 1.00 ms for MKL's 0.67 on Zen 4.
        return _by_onednn(grad_NM.t(), x_NK.t(), None)
    return grad_NM.t() @ x_NK


def arithmetic_dtype(x: Tensor) -> torch.dtype:
    """Autocast's dtype where that is on, else x's own: what a product of x is computed in."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def is_faster(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN is the way to multiply these: both float32 on such a CPU, autocast off."""
    return (
        a.dtype == b.dtype == torch.float32
        and a.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and _mkl_is_slow()
    )


@cache
def _mkl_is_slow() -> bool:
    """Whether this processor has AVX-512 and MKL does not use it."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):  # type: ignore[no-untyped-call]
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return processor.is_amd() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _by_onednn(x: Tensor, weight_MK: Tensor, bias_M: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_MK, bias_M, "none", [], "")
    return y


class _Linear(torch.autograd.Function):
    """F.linear and its gradients, each by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_MK: Tensor, bias_M: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_MK)
        return _by_onednn(x, weight_MK, bias_M)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_MK = ctx.saved_tensors
        grad_NM = grads[0].reshape(-1, len(weight_MK))
        of_x, of_weight, of_bias = ctx.needs_input_grad
        grad_x = _by_onednn(grad_NM, weight_MK.t(), None).view_as(x) if of_x else None
        grad_weight_MK = of_matrix(grad_NM, x.reshape(-1, x.shape[-1])) if of_weight else None
        return grad_x, grad_weight_MK, grad_NM.sum(0) if of_bias else None
