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
    ) -> None:
        pairs = list(matrices)
        self._parts = {id(parameter): parts for parameter, parts in pairs}
        self._n_iterations = n_iterations
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([parameter for parameter, _ in pairs], defaults)
        # As of torch's fused optimizers: 1.0 (0-d, on the device) makes a step change nothing, without waiting for it;
        # gradients are divided by the scale.
        self.found_inf: Tensor | None = None
        self.grad_scale: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no closure
        """Update every parameter that has a gradient; none where `found_inf` says so."""
        usable = None if self.found_inf is None else 1 - self.found_inf
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = [self._momentum(parameter, group["momentum"]) for parameter in parameters]
            self._orthogonalise_together(
                [p for p in zip(parameters, updates, strict=True) if not in_parts(p[0])]
            )
            for parameter, update in zip(parameters, updates, strict=True):
                if in_parts(parameter):  # one by one: all of them whole would not fit
                    whole = joined_like(update, parameter)
                    self._orthogonalise_together([(parameter, whole)])
                    update.copy_(local(placed_like(whole, parameter)))
            weights = [local(parameter) for parameter in parameters]
            if usable is None:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, updates, alpha=-group["lr"])
            else:
                torch._foreach_mul_(weights, 1 - usable * (group["lr"] * group["weight_decay"]))
                torch._foreach_mul_(updates, usable * -group["lr"])
                torch._foreach_add_(weights, updates)

    def _orthogonalise_together(self, pairs: list[tuple[nn.Parameter, Tensor]]) -> None:
        """Replace the whole update of each parameter by its orthogonal factors, scaled; equal shapes at once."""
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for parameter, update in pairs:
            for matrix_RC in self._split(parameter, update):
                by_shape.setdefault(matrix_RC.shape, []).append(matrix_RC)
        for shape, matrices in by_shape.items():
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            orthogonal_NRC = orthogonalise(torch.stack(matrices), self._n_iterations).mul_(scale)
            for matrix_RC, new_RC in zip(matrices, orthogonal_NRC, strict=True):
                matrix_RC.copy_(new_RC)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The gradient as Nesterov's momentum sees it, in memory of its own; this process's part of it."""
        assert parameter.grad is not None
        gradient = local(parameter.grad)
        if self.grad_scale is not None:
            gradient = gradient / self.grad_scale
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average = local(state["momentum"])
        if (
            self.found_inf is not None
        ):  # an unusable gradient gives way to the average, which then stays as it is
            gradient = torch.where(self.found_inf > 0, average, gradient)
        average.lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)

    def _split(self, parameter: nn.Parameter, update: Tensor) -> tuple[Tensor, ...]:
        """The matrices of a parameter, as views of `update`."""
        if update.dim() == 3:
            return update.unbind(0)
        return torch.split(update, list(self._parts[id(parameter)]))


def orthogonalise(matrices_NRC: Tensor, n_iterations: int = 5) -> Tensor:
    """The orthogonal factor of each matrix, nearly: singular values between 0.7 and 1.2 after five iterations.

    In bfloat16 on a GPU.
    """
    x_NRC = matrices_NRC.to(torch.bfloat16 if matrices_NRC.is_cuda else matrices_NRC.dtype)
    tall = x_NRC.shape[1] > x_NRC.shape[2]
    if tall:  # the products are as small as the shorter side
        x_NRC = x_NRC.mT
    x_NRC = x_NRC / (x_NRC.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(n_iterations):
        a_NRR = x_NRC @ x_NRC.mT
        b_NRR = torch.baddbmm(a_NRR, a_NRR, a_NRR, beta=_B, alpha=_C)
        x_NRC = torch.baddbmm(x_NRC, b_NRR, x_NRC, beta=_A)
    return (x_NRC.mT if tall else x_NRC).to(matrices_NRC.dtype)
