"""One optimizer step: the gradient of its micro-batches, and an update only where every number is finite.

Nothing here waits for the device: whether a step counts is decided there by a flag that the optimizers read, and people
read the counters when they ask for a report.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from pylm.early_update import EarlyUpdate
from pylm.feed import MicroBatch, StepBatch
from pylm.loss import summed_cross_entropy
from pylm.models.attention import fastest_kernels
from pylm.models.build import Decoder
from pylm.parallel import Parallel
from pylm.parts import local
from pylm.precision import Precision

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
        self,
        model: Decoder,
        optimizers: Sequence[Optimizer],
        *,
        clip: float,
        precision: Precision | None = None,
        early_update: bool = False,
        skipped: int = 0,
        parallel: Parallel | None = None,
    ) -> None:
        """`clip` is the largest norm of all gradients together, 0 for no limit; `parallel` has the model."""
        self.model = model
        self._parameters = list(model.parameters())
        self._parallel = parallel or Parallel(model)
        self.optimizers = optimizers
        self.clip = clip
        self.device = self._parameters[0].device
        self.precision = precision or Precision("float32", self.device)
        self._early = EarlyUpdate(model, optimizers, self._parallel.world) if early_update else None
        self._loss = self._norm = torch.zeros((), device=self.device)
        self._skipped = torch.tensor(float(skipped), device=self.device)
        self._in_a_row = torch.zeros((), device=self.device)

    def step(self, batch: StepBatch) -> None:
        """Step along the mean loss over the batch's targets."""
        if self._early is not None:
            loss, norm, unusable = self._pass_and_update(batch, self._early)
        else:
            loss, norm, divisor = self._gradients(batch)
            unusable = (~torch.isfinite(loss + norm)).float()
            for optimizer in self.optimizers:
                # Fused AdamW and Muon read both: a pass over all gradients less than dividing them here.
                optimizer.found_inf = unusable  # type: ignore[attr-defined]
                optimizer.grad_scale = divisor  # type: ignore[attr-defined]
                optimizer.step()
            for parameter in self._parameters:
                parameter.grad = None
        self.precision.update(unusable)
        self._loss, self._norm = loss, norm
        self._skipped += unusable
        self._in_a_row = (self._in_a_row + 1) * unusable

    def _gradients(self, batch: StepBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Make the gradients; the loss, their norm, and what they are to be divided by for scale and clipping."""
        loss = torch.zeros((), device=self.device)
        for number, part in enumerate(batch, 1):
            with self._parallel.adding(last=number == batch.n_parts):
                part_loss = self._loss_of(part, batch.n_targets)
                self.precision.scaled(part_loss).backward()  # type: ignore[no-untyped-call]  # torch's
            loss += part_loss.detach()
        gradients = [local(p.grad) for p in self._parameters if p.grad is not None]
        norm = self._parallel.norm(gradients)
        divisor = self.precision.scale
        if divisor is not None:
            norm = norm / divisor
        if self.clip:
            too_long = ((norm + 1e-6) / self.clip).clamp(min=1.0)
            divisor = too_long if divisor is None else divisor * too_long
        return self._parallel.world.sum(loss), norm, divisor

    def _pass_and_update(self, batch: StepBatch, early: EarlyUpdate) -> tuple[Tensor, Tensor, Tensor]:
        """One micro-batch whose backward pass updates; loss, norm and whether something was not finite."""
        (part,) = batch
        loss = self._loss_of(part, batch.n_targets)
        of_all = self._parallel.world.sum(loss.detach().clone())
        early.begin((~torch.isfinite(of_all)).float())
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        return of_all, *early.end()

    def _loss_of(self, part: MicroBatch, n_targets: int) -> Tensor:
        with self.precision.context(), fastest_kernels(self.device):
            total = self._parallel.train_on(
                summed_cross_entropy, part.inputs_BT, part.targets_BT, part.documents_BT
            )
        return total / max(1, n_targets)

    def report(self) -> Report:
        """Wait for the device, and read."""
        values = torch.stack((self._loss, self._norm, self._skipped, self._in_a_row)).tolist()
        return Report(values[0], values[1], int(values[2]), int(values[3]))
