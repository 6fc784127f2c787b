"""One optimizer step: the gradient of its micro-batches, and an update only where every number is finite.

Nothing here waits for the device: whether a step counts is decided there by a flag that the optimizers read, and people
read the counters when they ask for a report.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from pylm.loss import summed_cross_entropy
from pylm.models.build import Decoder

# Axes: B sequences, T positions.

MAX_SKIPPED = 20  # steps in a row that change nothing, before it is no accident


@dataclass(frozen=True)
class Report:
    """How the steps went, read from the device in one transfer."""

    loss: float  # of the last step, nats per token
    grad_norm: float  # of the last step, before clipping
    skipped: int  # steps of the whole run that changed nothing
    in_a_row: int  # the last ones of those


class Stepper:
    """Takes optimizer steps of one model; `skipped` is the count that a resumed run begins with."""

    def __init__(
        self, model: Decoder, optimizers: Sequence[Optimizer], *, clip: float, skipped: int = 0
    ) -> None:
        """`clip` is the largest norm of all gradients together, 0 for no limit."""
        self.model = model
        self.optimizers = optimizers
        self.clip = clip or math.inf
        self.device = next(model.parameters()).device
        self._loss = self._norm = torch.zeros((), device=self.device)
        self._skipped = torch.tensor(float(skipped), device=self.device)
        self._in_a_row = torch.zeros((), device=self.device)

    def step(self, micro_batches: Iterable[tuple[Tensor, Tensor]], n_targets: int) -> None:
        """Step along the mean loss over `n_targets`: inputs and targets (B, T) of one micro-batch after another."""
        loss = torch.zeros((), device=self.device)
        for inputs_BT, targets_BT in micro_batches:
            part = summed_cross_entropy(self.model, inputs_BT, targets_BT) / n_targets
            part.backward()  # type: ignore[no-untyped-call]  # torch's
            loss += part.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        unusable = (~torch.isfinite(loss + norm)).float()
        for optimizer in self.optimizers:
            optimizer.found_inf = unusable  # type: ignore[attr-defined]  # read by fused AdamW and by Muon
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._loss, self._norm = loss, norm
        self._skipped += unusable
        self._in_a_row = (self._in_a_row + 1) * unusable

    def report(self) -> Report:
        """Wait for the device, and read."""
        values = torch.stack((self._loss, self._norm, self._skipped, self._in_a_row)).tolist()
        return Report(values[0], values[1], int(values[2]), int(values[3]))
