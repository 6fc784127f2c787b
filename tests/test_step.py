"""A step counts or changes nothing: what is not finite is skipped, on the device, and without waiting for it."""

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pylm.config import OptimizerConfig
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.optim import build_optimizers
from pylm.step import Stepper

SHAPE = ModelConfig(vocab_size=37, max_context=16, n_layers=2, width=16, n_heads=2, mlp_hidden=32)
Batch = tuple[torch.Tensor, torch.Tensor]


def _stepper(optimizer: str = "adamw") -> Stepper:
    model = build_model(SHAPE, seed=1)
    optimizers = build_optimizers(model, OptimizerConfig(name=optimizer, lr=1e-2))
    return Stepper(model, optimizers, clip=1.0)


def _batch(number: int, n: int = 4) -> Batch:
    ids_BL = torch.randint(37, (n, 17), generator=torch.Generator().manual_seed(number))
    return ids_BL[:, :-1], ids_BL[:, 1:]


def _everything(stepper: Stepper) -> list[torch.Tensor]:
    """Weights and all that the optimizers keep."""
    kept = [entry for o in stepper.optimizers for state in o.state.values() for entry in state.values()]
    return [tensor.detach().clone() for tensor in (*stepper.model.parameters(), *kept)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing(optimizer: str, value: float) -> None:
    with_it, without = _stepper(optimizer), _stepper(optimizer)
    for number in range(4):
        if number == 2:
            poisoned = with_it.model.blocks[1].mlp.up.weight.register_hook(lambda grad: grad + value)
            before = _everything(with_it)
            with_it.step([_batch(99)], 64)
            poisoned.remove()
            assert all(torch.equal(a, b) for a, b in zip(before, _everything(with_it), strict=True))
            assert (with_it.report().skipped, with_it.report().in_a_row) == (1, 1)
        for stepper in (with_it, without):
            stepper.step([_batch(number)], 64)
    assert all(torch.equal(a, b) for a, b in zip(_everything(with_it), _everything(without), strict=True))
    assert (with_it.report().skipped, with_it.report().in_a_row) == (1, 0)


def test_the_flag_changes_nothing_where_all_is_finite() -> None:
    """Steps by the flag equal plain steps of the same optimizer."""
    for name in ("adamw", "muon"):
        found, plain = _stepper(name), _stepper(name)
        for number in range(3):
            found.step([_batch(number)], 64)
            logits_BTV, targets_BT = plain.model(_batch(number)[0]), _batch(number)[1]
            torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten()).backward()
            torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 1.0)
            for optimizer in plain.optimizers:
                optimizer.step()
                optimizer.zero_grad()
        for a, b in zip(found.model.parameters(), plain.model.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


class _NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a value of the device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "local_scalar_dense" not in str(function), "the host waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_does_not_wait_for_the_device(optimizer: str) -> None:
    stepper = _stepper(optimizer)
    with _NoWaiting():
        for number in range(2):
            stepper.step([_batch(number), _batch(number + 10)], 128)
        with pytest.raises(AssertionError, match="the host waits"):
            float(stepper.report().loss + torch.ones(()))
