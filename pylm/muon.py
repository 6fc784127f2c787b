"""Muon (Jordan et al. 2024): momentum whose every matrix is replaced by the nearest orthogonal one.

The singular values of a matrix's momentum all become about one, so that rare directions learn as fast as common ones.
The orthogonalisation is a few Newton-Schulz steps, batched over all matrices of equal shape: torch's own Muon is a
Python loop over them.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from pylm.parts import in_parts, joined_like, local, placed_like

# Axes: N matrices of equal shape, R rows, C columns.

# Jordan's quintic: X <- aX + (bA + cA^2)X with A = X X^T; five iterations bring singular values of 0.01 to 1 near 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
# At most: large matrices gain nothing by more of them, and a stack is there five times.
STACKED_NUMBERS = 1 << 24
MIN_HALVED = 96  # rows that pay for conversions to bfloat16 on a CPU


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled by sqrt(max(1, rows / columns)); decoupled weight decay.

    Each of `matrices` is a parameter (outputs, inputs) and the sizes of the matrices that it stacks along its outputs
    (q, k and v of attention are three), or a parameter (n, outputs, inputs) of n matrices.
    """

    def __init__(
        self,
        matrices: Iterable[tuple[nn.Parameter, tuple[int, ...]]],
        lr: float,
        momentum: float,
        weight_decay: float,
        n_iterations: int = 5,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`dtype` is what the run computes in: where that is bfloat16, large matrices are made orthogonal in it too."""
        pairs = list(matrices)
        self._parts = {id(parameter): parts for parameter, parts in pairs}
        self._n_iterations, self._dtype = n_iterations, dtype
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([parameter for parameter, _ in pairs], defaults)
        # As of torch's fused optimizers: 1.0 (0-d, on the device) makes a step change nothing, without waiting for it;
        # gradients are divided by the scale.
        self.found_inf: Tensor | None = None
        self.grad_scale: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no closure
        """Update every parameter that has a gradient; none where `found_inf` says so."""
        found_inf = self.found_inf
        if found_inf is not None and _is_read_at_once(found_inf):
            if found_inf.item():
                return
            found_inf = None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            updates = self._momentum(parameters, group["momentum"], found_inf)
            self._orthogonalise_together(
                [p for p in zip(parameters, updates, strict=True) if not in_parts(p[0])]
            )
            for parameter, update in zip(parameters, updates, strict=True):
                if in_parts(parameter):  # one by one: all of them whole would not fit
                    whole = joined_like(update, parameter)
                    self._orthogonalise_together([(parameter, whole)])
                    update.copy_(local(placed_like(whole, parameter)))
            weights = [local(parameter) for parameter in parameters]
            if found_inf is None:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, updates, alpha=-group["lr"])
            else:
                usable = 1 - found_inf
                torch._foreach_mul_(weights, 1 - usable * (group["lr"] * group["weight_decay"]))
                torch._foreach_mul_(updates, usable * -group["lr"])
                torch._foreach_add_(weights, updates)

    def _momentum(
        self, parameters: list[nn.Parameter], momentum: float, found_inf: Tensor | None
    ) -> tuple[Tensor, ...]:
        """The gradients as Nesterov's momentum sees them, in memory of their own; this process's part of each."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        averages = [local(self.state[parameter]["momentum"]) for parameter in parameters]
        gradients = [local(parameter.grad) for parameter in parameters]
        are_ours = self.grad_scale is not None or found_inf is not None
        if self.grad_scale is not None:
            gradients = list(torch._foreach_div(gradients, self.grad_scale))
        if found_inf is not None:  # an unusable gradient gives way to the average, which then stays as it is
            gradients = [
                torch.where(found_inf > 0, average, gradient)
                for average, gradient in zip(averages, gradients, strict=True)
            ]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        if not are_ours:
            return torch._foreach_lerp(gradients, averages, momentum)
        torch._foreach_lerp_(gradients, averages, momentum)
        return tuple(gradients)

    def _orthogonalise_together(self, pairs: list[tuple[nn.Parameter, Tensor]]) -> None:
        """Replace the whole update of each parameter by its orthogonal factors, scaled; equal shapes at once."""
        by_shape: dict[torch.Size, list[tuple[Tensor, float]]] = {}
        for parameter, update in pairs:
            for matrix_RC in self._split(parameter, update):
                tall = matrix_RC.shape[0] > matrix_RC.shape[1]
                scale = (matrix_RC.shape[0] / matrix_RC.shape[1]) ** 0.5 if tall else 1.0
                # A transposed matrix's factor is the factor's transpose; products are as small as the shorter side.
                wide_RC = matrix_RC.mT if tall else matrix_RC
                by_shape.setdefault(wide_RC.shape, []).append((wide_RC, scale))
        for shape, matrices in by_shape.items():
            n_stacked = max(1, STACKED_NUMBERS // shape.numel())
            for first in range(0, len(matrices), n_stacked):
                wide, scales = zip(*matrices[first : first + n_stacked], strict=True)
                orthogonal = orthogonalise(torch.stack(wide), self._n_iterations, self._dtype).unbind(0)
                torch._foreach_mul_(orthogonal, scales)
                torch._foreach_copy_(wide, orthogonal)

    def _split(self, parameter: nn.Parameter, update: Tensor) -> tuple[Tensor, ...]:
        """The matrices of a parameter, as views of `update`."""
        if update.dim() == 3:
            return update.unbind(0)
        parts = self._parts[id(parameter)]
        return (update,) if len(parts) == 1 else torch.split(update, list(parts))


def _is_read_at_once(flag: Tensor) -> bool:
    """Whether a number is there when it is asked for, and not still under way on a device."""
    return flag.device.type == "cpu"


def orthogonalise(matrices_NRC: Tensor, n_iterations: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """The orthogonal factor of each matrix, nearly: singular values between 0.7 and 1.2 after five iterations.

    Of no more rows than columns. In bfloat16 on a GPU, and where that is `dtype` and matrices are large: two cores of
    an Intel Xeon take 13 ms in it for 44 (8 of 256 x 1,024), 1.2 for 3.0 (16 of 128 x 128), 0.9 for 0.6 (8 of 64 x 64).
    """
    halves = matrices_NRC.is_cuda or (dtype == torch.bfloat16 and matrices_NRC.shape[1] >= MIN_HALVED)
    x_NRC = matrices_NRC.to(torch.bfloat16 if halves else matrices_NRC.dtype)
    x_NRC = x_NRC / (x_NRC.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(n_iterations):
        a_NRR = torch.bmm(x_NRC, x_NRC.mT)
        b_NRR = torch.baddbmm(a_NRR, a_NRR, a_NRR, beta=_B, alpha=_C)
        x_NRC = torch.baddbmm(x_NRC, b_NRR, x_NRC, beta=_A)
    return x_NRC.to(matrices_NRC.dtype)
