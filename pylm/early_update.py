"""Updates inside the backward pass: each parameter is updated when its gradient is there, which is then dropped.

The gradients never exist together: of a model of n parameters that saves 4n bytes but for the largest tensor (Lv et al.
2023, LOMO). What needs them together is given up: accumulation, clipping by the global norm, Muon's batches, and a
scale of the loss.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pylm.world import World


class EarlyUpdate:
    """Hooks on a model's parameters that step `optimizer`, an AdamW that takes a `found_inf`.

    In a world of several processes each gradient is summed over them when it is there, in the same order in all.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], world: World | None = None) -> None:
        self._world = world or World()
        (self._optimizer,) = optimizers
        self._squares = self._unusable = torch.zeros((), device=next(model.parameters()).device)
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(self._update)  # type: ignore[no-untyped-call]  # torch's

    def begin(self, unusable: Tensor) -> None:
        """Before a backward pass: `unusable` (0-d, 1.0 or 0.0) says whether the loss alone forbids updates."""
        self._unusable, self._squares = unusable, torch.zeros_like(unusable)

    def end(self) -> tuple[Tensor, Tensor]:
        """After it: the norm of all gradients, and whether any of them was unusable."""
        return self._squares.sqrt(), self._unusable

    def _update(self, parameter: Tensor) -> None:
        """Update one parameter, if its gradient is finite; those before it stay updated."""
        assert parameter.grad is not None
        self._world.sum(parameter.grad)
        square = torch.linalg.vector_norm(parameter.grad).square()
        self._squares = self._squares + square
        self._unusable = torch.maximum(self._unusable, (~torch.isfinite(square)).float())
        self._optimizer.found_inf = self._unusable  # type: ignore[attr-defined]  # fused AdamW reads it
        self._optimizer.step()  # the others have no gradient now, and are passed over
        parameter.grad = None
