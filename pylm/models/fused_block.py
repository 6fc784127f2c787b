"""A block of the residual stream on a CPU as one operation of autograd, without gains and biases:

    x = x + attention(norm(x));  x = x + mlp(norm(x)),  the `auto` preset's.

Matrices are multiplied by torch; what stands between the products the extension does, in one pass each. A step of 4
layers of 128, 12 x 64 tokens, in float32 on two cores takes 0.95 of its time by modules, of 6 x 384 in bfloat16 0.96.

Small blocks in float32 the extension does whole, where torch's MKL is to be had: 0.87 to 0.90 of the time of that step
on two threads of an Intel Xeon, 0.92 on one; 4 x 256, 16 x 256 tokens, 0.91 and 1.00. There is less between the
products, and each thread waits for the others once a block.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pylm import _bpe, kernels
from pylm.models import fused
from pylm.models.fused import Heads
from pylm.models.products import arithmetic_dtype, is_faster, of_matrix, times_transposed

# Axes: B sequences, T positions, D model width, E features of the projection, F hidden ones, G = F or, of SwiGLU, 2 F,
# N = B x T rows.

ACTIVATIONS = ("relu2", "swiglu")
SMALL_NUMBERS = 1 << 20  # of a block's matrices, whose gradients each thread adds up for itself


@dataclass(frozen=True)
class Parts:
    """What there is between the products."""

    heads: Heads
    norm: str  # layer or rms
    eps: float
    activation: str  # of ACTIVATIONS

    def as_tuple(self) -> tuple[Any, str, float, str]:
        """As the extension takes them."""
        return self.heads.as_tuple(), self.norm, self.eps, self.activation


def run(x_BTD: Tensor, parts: Parts, matrices: tuple[Tensor, ...]) -> Tensor:
    """(B, T, D) to (B, T, D). The matrices are (E, D), (D, D), (G, D) and (D, F)."""
    way = _Whole if _is_small(x_BTD, matrices) else _Block
    y_BTD: Tensor = way.apply(x_BTD, parts, *matrices)
    return y_BTD


def _is_small(x_BTD: Tensor, matrices: tuple[Tensor, ...]) -> bool:
    """Whether the extension does all of it, products too."""
    return (
        all(tensor.dtype == torch.float32 for tensor in (x_BTD, *matrices))
        and sum(matrix.numel() for matrix in matrices) <= SMALL_NUMBERS
        and not is_faster(x_BTD, matrices[0])
        and kernels.have_products()
    )


class _Whole(torch.autograd.Function):
    """All of it by the extension, in float32: see rust_bpe/src/kernels/block.rs."""

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, parts: Parts, *matrices: Tensor) -> Tensor:
        x_BTD = x_BTD.contiguous()
        qkv_ED, out_DH, _, down_DF = matrices = tuple(matrix.contiguous() for matrix in matrices)
        hidden = down_DF.shape[1] * (3 if parts.activation == "swiglu" else 1)
        n_kept = 2 * (x_BTD.shape[2] + 1) + len(qkv_ED) + out_DH.shape[1] + hidden  # of a position
        kept = x_BTD.new_empty(x_BTD.shape[0] * x_BTD.shape[1] * n_kept)
        y_BTD = torch.empty_like(x_BTD)
        x, y, kept_array = (kernels.as_array(tensor) for tensor in (x_BTD, y_BTD, kept))
        given = tuple(kernels.as_view(matrix) for matrix in matrices)
        ctx.at_once = _bpe.run_block(x, given, parts.as_tuple(), y, kept_array, torch.get_num_threads())
        ctx.parts = parts
        ctx.save_for_backward(kept, *matrices)
        return y_BTD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        kept, *matrices = ctx.saved_tensors
        grad_BTD = grads[0].contiguous()
        places = tuple(torch.empty_like(tensor) for tensor in (grad_BTD, *matrices))
        kept_array, grad, grad_x, *of_matrices = (
            kernels.as_array(tensor) for tensor in (kept, grad_BTD, *places)
        )
        given = tuple(kernels.as_view(matrix) for matrix in matrices)
        parts, n_threads = ctx.parts.as_tuple(), torch.get_num_threads()
        _bpe.run_block_backward(
            kept_array, ctx.at_once, given, parts, grad, grad_x, tuple(of_matrices), n_threads
        )
        return places[0], None, *places[1:]


class _Block(torch.autograd.Function):
    """Kept for the backward pass: what goes into each product, the projection, and for SwiGLU what goes into it."""

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, parts: Parts, *matrices: Tensor) -> Tensor:
        qkv_ED, out_DD, up_GD, down_DF = matrices = tuple(m.to(arithmetic_dtype(x_BTD)) for m in matrices)
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1]).contiguous()
        normed_ND, scale_N = _normalise(None, x_ND, parts)
        projected_NE = times_transposed(normed_ND, qkv_ED)
        mixed_ND = fused.mixed(projected_NE.view(*x_BTD.shape[:2], -1), parts.heads).view_as(x_ND)
        between_ND = times_transposed(mixed_ND, out_DD)
        normed_2_ND, scale_2_N = _normalise(x_ND, between_ND, parts)
        up_NG = times_transposed(normed_2_ND, up_GD)
        hidden_NF = _activate(up_NG, parts.activation)
        ctx.save_for_backward(
            normed_ND, scale_N, projected_NE, mixed_ND, normed_2_ND, scale_2_N, up_NG, hidden_NF, *matrices
        )
        ctx.parts, ctx.shape = parts, x_BTD.shape
        return times_transposed(hidden_NF, down_DF).add_(between_ND).view_as(x_BTD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        normed_ND, scale_N, projected_NE, mixed_ND, normed_2_ND, scale_2_N, up_NG, hidden_NF, *matrices = (
            ctx.saved_tensors
        )
        qkv_ED, out_DD, up_GD, down_DF = matrices
        parts: Parts = ctx.parts
        grad_ND = grads[0].reshape(normed_ND.shape).contiguous()
        grad_down_DF = of_matrix(grad_ND, hidden_NF)
        grad_NG = _activation_gradient(up_NG, times_transposed(grad_ND, down_DF.t()), parts.activation)
        grad_up_GD = of_matrix(grad_NG, normed_2_ND)
        grad_ND = grad_ND.clone()  # the one that is given is not ours to change
        _add_gradient(normed_2_ND, scale_2_N, times_transposed(grad_NG, up_GD.t()), grad_ND, parts.norm)
        del grad_NG
        grad_out_DD = of_matrix(grad_ND, mixed_ND)
        grad_mixed_BTD = times_transposed(grad_ND, out_DD.t()).view(ctx.shape)
        projected_BTE = projected_NE.view(*ctx.shape[:2], -1)
        grad_NE = fused.gradient(projected_BTE, grad_mixed_BTD, parts.heads).view_as(projected_NE)
        grad_qkv_ED = of_matrix(grad_NE, normed_ND)
        _add_gradient(normed_ND, scale_N, times_transposed(grad_NE, qkv_ED.t()), grad_ND, parts.norm)
        return grad_ND.view(ctx.shape), None, grad_qkv_ED, grad_out_DD, grad_up_GD, grad_down_DF


def _activate(up_NG: Tensor, activation: str) -> Tensor:
    """The hidden features (N, F); relu(x)^2 stands where x was."""
    if activation == "relu2":
        _bpe.squared_relu(kernels.as_array(up_NG), torch.get_num_threads())
        return up_NG
    hidden_NF = up_NG.new_empty(len(up_NG), up_NG.shape[1] // 2)
    _bpe.swiglu(kernels.as_array(up_NG), kernels.as_array(hidden_NF), torch.get_num_threads())
    return hidden_NF


def _activation_gradient(up_NG: Tensor, grad_NF: Tensor, activation: str) -> Tensor:
    """The gradient (N, G) of what was activated; relu(x) is the root of relu(x)^2."""
    up, grad = kernels.as_array(up_NG), kernels.as_array(grad_NF)
    if activation == "relu2":
        _bpe.squared_relu_backward(up, grad, torch.get_num_threads())
        return grad_NF
    grad_NG = torch.empty_like(up_NG)
    _bpe.swiglu_backward(up, grad, kernels.as_array(grad_NG), torch.get_num_threads())
    return grad_NG


def _normalise(x_ND: Tensor | None, sums_ND: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
    """Add x to the sums, and normalise those; and by what they were divided, inverted (N)."""
    normed_ND = torch.empty_like(sums_ND)
    scale_N = sums_ND.new_empty(len(sums_ND), dtype=torch.float32)
    x = None if x_ND is None else kernels.as_array(x_ND)
    sums, normed, scale = (kernels.as_array(tensor) for tensor in (sums_ND, normed_ND, scale_N))
    _bpe.add_and_normalise(x, sums, normed, scale, parts.norm, parts.eps, torch.get_num_threads())
    return normed_ND, scale_N


def _add_gradient(
    normed_ND: Tensor, scale_N: Tensor, of_normed_ND: Tensor, grad_ND: Tensor, norm: str
) -> None:
    """Add the gradient of what was normalised."""
    normed, scale, of_normed, grad = (
        kernels.as_array(tensor) for tensor in (normed_ND, scale_N, of_normed_ND, grad_ND)
    )
    _bpe.normalise_backward(normed, scale, of_normed, grad, norm, torch.get_num_threads())
