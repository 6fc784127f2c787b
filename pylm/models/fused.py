"""Causal attention by the extension: from the fused projection to the mixed values in one go, and back.

Heads are normalised and turned, weighed and mixed while they are in a processor's cache. Milliseconds of both passes on
one core of an EPYC (Zen 4), by torch's operations and by this, in float32 and in bfloat16:

    sequences, positions, heads, features of one    float32       bfloat16
    12 x    64, 4 x 32                                2.8,   1.8    2.6,   2.1
     4 x   256, 6 x 64                               24.9,  12.7   14.4,  13.5
     2 x   512, 8 x 64                               57.2,  27.8   35.2,  29.0
     1 x 2,048, 8 x 64                              270.8, 200.1  220.3, 191.2

and of an Intel Xeon with AVX-512, which has AMX for torch's products of 16 bits:

    12 x    64, 4 x 32                                3.7,   2.1    3.0,   1.9
     4 x   256, 6 x 64                               18.8,  10.8   11.3,   9.9
     2 x   512, 8 x 64                               48.9,  22.7   24.0,  21.8
     1 x 2,048, 8 x 64                              198.2, 157.7  122.6, 143.0

Of the first line 0.78 is left in float32 since the softmax takes four rows at once, without a pass for the largest
score where heads are normalised, and squares are transposed in registers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pylm import _bpe, kernels
from pylm.models.products import arithmetic_dtype

# Axes: B sequences, T positions, E = (H + 2 K) x d numbers of a position: heads of queries, of keys, of values.

LANES = 16  # the size of a head is a multiple of it


@dataclass(frozen=True)
class Heads:
    """What is done with a projection."""

    n_heads: int  # H, of queries
    kv_heads: int  # K, of keys and of values
    norm: str  # of queries and keys, without gains: none, layer or rms
    eps: float
    angles: NDArray[Any] | None  # cosine and sine of each position's d / 2 angles: (T x d), float32

    def as_tuple(self) -> tuple[int, int, str, float, NDArray[Any] | None]:
        """As the extension takes them."""
        return self.n_heads, self.kv_heads, self.norm, self.eps, self.angles


def can_mix(x_BTD: Tensor, head_size: int) -> bool:
    """Whether `mix` is the way for a projection of x: on such a CPU, each thread with sequences of its own."""
    return (
        not torch.compiler.is_compiling()
        and head_size % LANES == 0
        and 2 * len(x_BTD) >= torch.get_num_threads()
        and kernels.can_take(x_BTD, arithmetic_dtype(x_BTD))
    )


def mix(projected_BTE: Tensor, heads: Heads) -> Tensor:
    """Softmax(q k / sqrt(d)) v over each position and those before it: (B, T, H x d)."""
    mixed_BTE: Tensor = _Mix.apply(projected_BTE, heads)
    return mixed_BTE


class _Mix(torch.autograd.Function):
    """Of the forward pass only the projection is kept."""

    @staticmethod
    def forward(ctx: Any, projected_BTE: Tensor, heads: Heads) -> Tensor:
        projected_BTE = projected_BTE.contiguous()
        ctx.save_for_backward(projected_BTE)
        ctx.heads = heads
        return mixed(projected_BTE, heads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (projected_BTE,) = ctx.saved_tensors
        return gradient(projected_BTE, grads[0].contiguous(), ctx.heads), None


def mixed(projected_BTE: Tensor, heads: Heads) -> Tensor:
    """`mix` of a contiguous projection, without a gradient."""
    n_mixed = projected_BTE.shape[2] * heads.n_heads // (heads.n_heads + 2 * heads.kv_heads)
    mixed_BTE = projected_BTE.new_empty(*projected_BTE.shape[:2], n_mixed)
    projected, mixed = kernels.as_array(projected_BTE), kernels.as_array(mixed_BTE)
    _bpe.mix_heads(projected, mixed, heads.as_tuple(), torch.get_num_threads())
    return mixed_BTE


def gradient(projected_BTE: Tensor, grad_mixed_BTE: Tensor, heads: Heads) -> Tensor:
    """The gradient of a projection for that of what was mixed of it, all contiguous."""
    grad_BTE = torch.empty_like(projected_BTE)
    projected, grad_mixed, grad = (
        kernels.as_array(tensor) for tensor in (projected_BTE, grad_mixed_BTE, grad_BTE)
    )
    _bpe.mix_heads_backward(projected, grad_mixed, grad, heads.as_tuple(), torch.get_num_threads())
    return grad_BTE
