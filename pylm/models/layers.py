"""The parts every family is built from: linear layers, embedding, norms and MLPs.

Parameters are made empty; `pylm.models.init` fills them, once, by the rule the config names.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pylm.models import products
from pylm.models.config import ModelConfig

# Axes: B sequences, T positions, D model width, F hidden features of the MLP, N layers side by side, M = B x T.

Role = Literal["plain", "qkv", "attention_out", "mlp_out", "head"]


class Linear(nn.Linear):
    """A linear layer that may hold several matrices of the same input, one above another.

    `parts` gives their output sizes: one product is faster than three, and initialisation needs the sizes.
    `role` is for initialisation: the `_out` ones write into the residual stream.
    """

    def __init__(self, n_in: int, parts: int | tuple[int, ...], bias: bool, role: Role = "plain") -> None:
        self.parts = parts if isinstance(parts, tuple) else (parts,)
        self.role = role
        super().__init__(n_in, sum(self.parts), bias)

    def forward(self, x: Tensor) -> Tensor:
        """(.., n_in) to (.., all outputs)."""
        return products.linear(x, self.weight, self.bias)

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class Embedding(nn.Embedding):
    """A table of rows by id."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class RMSNorm(nn.Module):
    """x / rms(x) * gain over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; same shape and dtype."""
        if x.device.type == "cpu" and x.dtype != torch.float64 and not torch.compiler.is_compiling():
            normed: Tensor = _FastRMSNorm.apply(x, self.weight, self.eps)
            return normed
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class LayerNorm(nn.Module):
    """(x - mean) / deviation * gain + bias over the last axis (Ba et al. 2016)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; same shape and dtype."""
        return F.layer_norm(x, self.weight.shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class PlainNorm(nn.Module):
    """LayerNorm or RMSNorm without gains and biases."""

    def __init__(self, kind: str, eps: float) -> None:
        super().__init__()
        self.kind, self.eps = kind, eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last axis; same shape and dtype."""
        normalise = F.layer_norm if self.kind == "layer" else F.rms_norm
        return normalise(x, x.shape[-1:], eps=self.eps)


class EmbeddingConvolution(nn.Module):
    """Each feature of a position mixed with the same feature of the positions just before it, by learned weights."""

    def __init__(self, n_positions: int, width: int) -> None:
        super().__init__()
        self.n_positions = n_positions
        # One axis, as gains have: no weight decay. The first `width` numbers are for the position itself.
        self.weight = nn.Parameter(torch.empty(n_positions * width))

    def forward(self, x_BTD: Tensor, positions_BT: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D); before the first position there is nothing, nor before position 0 of a document."""
        weight_ND = self.weight.view(self.n_positions, -1)
        if positions_BT is None and not torch.compiler.is_compiling():
            y_BTD: Tensor = _Convolution.apply(x_BTD, weight_ND)
            return y_BTD
        mixed_BTD = x_BTD * weight_ND[0]
        for distance in range(1, min(self.n_positions, x_BTD.shape[1])):
            earlier_BTD = F.pad(x_BTD[:, :-distance], (0, 0, distance, 0))
            if positions_BT is not None:
                earlier_BTD = earlier_BTD.masked_fill((positions_BT < distance)[:, :, None], 0.0)
            mixed_BTD = torch.addcmul(mixed_BTD, earlier_BTD, weight_ND[distance])
        return mixed_BTD


class _Convolution(torch.autograd.Function):
    """The same where nothing is masked: each distance adds to a part of what is there, and only x is kept.

    20 x 64 positions of 64, distances up to 2, both passes, two cores of a Xeon: 0.43 ms for 0.63 by autograd's own
    operations, 16 x 256 of 256 3.8 for 9.8.
    """

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, weight_ND: Tensor) -> Tensor:
        ctx.save_for_backward(x_BTD, weight_ND)
        y_BTD = x_BTD * weight_ND[0]
        for distance in range(1, min(len(weight_ND), x_BTD.shape[1])):
            y_BTD[:, distance:].addcmul_(x_BTD[:, :-distance], weight_ND[distance])
        return y_BTD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x_BTD, weight_ND = ctx.saved_tensors
        (grad_BTD,) = grads
        grad_x_BTD = grad_BTD * weight_ND[0]
        grad_weight_ND = torch.zeros_like(weight_ND)
        grad_weight_ND[0] = (grad_BTD * x_BTD).sum((0, 1))
        for distance in range(1, min(len(weight_ND), x_BTD.shape[1])):
            later_BTD = grad_BTD[:, distance:]
            grad_x_BTD[:, :-distance].addcmul_(later_BTD, weight_ND[distance])
            grad_weight_ND[distance] = (later_BTD * x_BTD[:, :-distance]).sum((0, 1))
        return grad_x_BTD, grad_weight_ND


class BatchedLinear(nn.Module):
    """`n` linear layers side by side, each on its own input or all on one, as one batched product."""

    def __init__(self, n: int, n_in: int, n_out: int, bias: bool, role: Role = "plain") -> None:
        super().__init__()
        self.n, self.n_in, self.n_out, self.role = n, n_in, n_out, role
        self.weight = nn.Parameter(torch.empty(n, n_out, n_in))
        # One axis, as every bias has: optimizers tell matrices from the rest by that.
        self.bias = nn.Parameter(torch.empty(n * n_out)) if bias else None

    def forward(self, x_NMD: Tensor) -> Tensor:
        """(n, M, n_in) to (n, M, n_out)."""
        weight = self.weight.transpose(1, 2)
        if self.bias is None:
            return torch.bmm(x_NMD, weight)
        return torch.baddbmm(self.bias.view(self.n, 1, self.n_out), x_NMD, weight)


class BatchedLayerNorm(nn.Module):
    """`n` LayerNorms side by side: (n, M, width) with gains and biases for each."""

    def __init__(self, n: int, width: int, eps: float) -> None:
        super().__init__()
        self.n, self.width, self.eps = n, width, eps
        self.weight = nn.Parameter(torch.empty(n * width))
        self.bias = nn.Parameter(torch.empty(n * width))

    def forward(self, x_NMD: Tensor) -> Tensor:
        """Normalise; same shape."""
        shape = (self.n, 1, self.width)
        return torch.addcmul(
            self.bias.view(shape), F.layer_norm(x_NMD, (self.width,), eps=self.eps), self.weight.view(shape)
        )


def make_norm(config: ModelConfig, width: int) -> nn.Module:
    """The config's norm over `width` features; the identity where the config has none."""
    if config.norm == "none":
        return nn.Identity()
    if config.norm_gains == "none":
        return PlainNorm(config.norm_kind, config.norm_eps)
    return {"rms": RMSNorm, "layer": LayerNorm}[config.norm_kind](width, config.norm_eps)


class MLP(nn.Module):
    """Two layers with a non-linearity between; `swiglu` gates it: SiLU(W1 x) * W2 x (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind, hidden = config.mlp, config.hidden
        gated = self.kind == "swiglu"
        self.up = Linear(config.width, (hidden, hidden) if gated else hidden, config.bias)
        self.down = Linear(hidden, config.width, config.bias, "mlp_out")
        self.activation = _swiglu if gated else ACTIVATIONS[self.kind]

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        y_BTD: Tensor = self.down(self.activation(self.up(x_BTD)))
        return y_BTD


def _swiglu(x_BT2F: Tensor) -> Tensor:
    gate_BTF, up_BTF = x_BT2F.chunk(2, dim=-1)
    return F.silu(gate_BTF) * up_BTF


def _relu2(x: Tensor) -> Tensor:
    y: Tensor = _SquaredReLU.apply(x)
    return y


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": F.relu,
    "relu2": _relu2,
}


class _SquaredReLU(torch.autograd.Function):
    """relu(x)^2 whose gradient is 2 relu(x): no second look at where x is positive or power, two passes for five."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rectified = F.relu(x)
        ctx.save_for_backward(rectified)
        return rectified.square()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (rectified,) = ctx.saved_tensors
        grad: Tensor = (grads[0] * rectified).mul_(2)
        return grad


class _FastRMSNorm(torch.autograd.Function):
    """RMSNorm with a gradient written out, for a CPU; in float32 inside.

    4,096 x 512, forward and backward, 2 cores: 2.4 ms against 7.4 for F.rms_norm, whose backward is a
    dozen separate passes there (F.layer_norm has a kernel and takes 1.1).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale, gain)
        normed: Tensor = (x * scale).mul_(gain).to(x.dtype)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scale, gain = ctx.saved_tensors
        grad = grads[0].float()
        product = grad * x
        rows = product.view(-1, gain.numel())
        gain_grad = torch.mv(rows.t(), scale.reshape(-1))
        along = torch.mv(rows, gain).view_as(scale).mul_(scale**3).div_(gain.numel())
        x_grad = torch.mul(grad, gain, out=product)
        return x_grad.mul_(scale).addcmul_(x, along, value=-1).to(x.dtype), gain_grad, None
