"""A step counts or changes nothing: what is not finite is skipped, on the device, and without waiting for it."""

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pylm import muon
from pylm.config import OptimizerConfig
from pylm.feed import StepBatch
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.optim import build_optimizers
from pylm.precision import Precision
from pylm.step import Stepper

SHAPE = ModelConfig(vocab_size=37, max_context=16, n_layers=2, width=16, n_heads=2, mlp_hidden=32)


def _stepper(
    optimizer: str = "adamw", clip: float = 1.0, dtype: str = "float32", early: bool = False
) -> Stepper:
    model = build_model(SHAPE, seed=1)
    optimizers = build_optimizers(model, OptimizerConfig(name=optimizer, lr=1e-2))
    precision = Precision(dtype, torch.device("cpu"))
    return Stepper(model, optimizers, clip=clip, precision=precision, early_update=early)


def _batch(number: int, micro_batch: int = 4) -> StepBatch:
    ids_BL = torch.randint(37, (4, 17), generator=torch.Generator().manual_seed(number))
    return StepBatch((ids_BL[:, :-1], ids_BL[:, 1:]), micro_batch, 64)


def _everything(stepper: Stepper) -> list[torch.Tensor]:
    """Weights and all that the optimizers keep."""
    parameters = list(stepper.model.parameters())
    states = [o.state[p] for p in parameters for o in stepper.optimizers if p in o.state]
    kept = [entry for state in states for entry in state.values()]
    return [tensor.detach().clone() for tensor in (*parameters, *kept)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "muon, as on a GPU"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing(
    optimizer: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if optimizer.endswith("GPU"):
        optimizer = "muon"
        monkeypatch.setattr(muon, "_is_read_at_once", lambda _: False)
    with_it, without = _stepper(optimizer), _stepper(optimizer)
    for number in range(4):
        if number == 2:
            poisoned = with_it.model.blocks[1].mlp.up.weight.register_hook(lambda grad: grad + value)
            before = _everything(with_it)
            with_it.step(_batch(99))
            poisoned.remove()
            assert all(torch.equal(a, b) for a, b in zip(before, _everything(with_it), strict=True))
            assert (with_it.report().skipped, with_it.report().in_a_row) == (1, 1)
        for stepper in (with_it, without):
            stepper.step(_batch(number))
    assert all(torch.equal(a, b) for a, b in zip(_everything(with_it), _everything(without), strict=True))
    assert (with_it.report().skipped, with_it.report().in_a_row) == (1, 0)


def test_the_flag_changes_nothing_where_all_is_finite() -> None:
    """Steps by the flag equal plain steps of the same optimizer."""
    for name in ("adamw", "muon"):
        found, plain = _stepper(name), _stepper(name)
        for number in range(3):
            found.step(_batch(number))
            inputs_BT, targets_BT = _batch(number).tensors
            logits_BTV = plain.model(inputs_BT)
            torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten()).backward()
            torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 1.0)
            for optimizer in plain.optimizers:
                optimizer.step()
                optimizer.zero_grad()
        # AdamW makes a whole step of a gradient that is hardly more than rounding: so all of a tensor together.
        for a, b in zip(found.model.parameters(), plain.model.parameters(), strict=True):
            assert (a - b).norm() <= 1e-5 * b.norm()


class _NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a value of the device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "local_scalar_dense" not in str(function), "the host waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_does_not_wait_for_the_device(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "_is_read_at_once", lambda _: False)  # as on a GPU
    stepper = _stepper(optimizer)
    with _NoWaiting():
        for number in range(2):
            stepper.step(_batch(number, micro_batch=2))
        with pytest.raises(AssertionError, match="the host waits"):
            float(torch.ones(()))


def test_an_early_update_is_the_same_update() -> None:
    early, late = _stepper(clip=0.0, early=True), _stepper(clip=0.0)
    for number in range(3):
        for stepper in (early, late):
            stepper.step(_batch(number))
        assert early.report().grad_norm == pytest.approx(late.report().grad_norm, rel=1e-5)
        assert all(parameter.grad is None for parameter in early.model.parameters())
    for a, b in zip(_everything(early), _everything(late), strict=True):
        assert torch.equal(a, b)


def test_an_early_update_is_skipped_where_the_loss_is_not_finite() -> None:
    stepper = _stepper(clip=0.0, early=True)
    stepper.step(_batch(0))
    hook = stepper.model.blocks[0].register_forward_hook(lambda module, inputs, output: output * math.nan)
    before = _everything(stepper)
    stepper.step(_batch(1))
    hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, _everything(stepper), strict=True))
    assert stepper.report().skipped == 1
    stepper.step(_batch(2))
    assert stepper.report().in_a_row == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_follows_float32_and_keeps_float32_weights(dtype: str) -> None:
    low, exact = _stepper(dtype=dtype), _stepper()
    for number in range(5):
        for stepper in (low, exact):
            stepper.step(_batch(number % 2))
        assert low.report().loss == pytest.approx(exact.report().loss, rel=2e-2)
        assert low.report().grad_norm == pytest.approx(exact.report().grad_norm, rel=0.1)
    assert all(tensor.dtype == torch.float32 for tensor in _everything(low))
    assert low.report().skipped == 0


def test_the_scale_of_float16_falls_with_overflow_and_grows_with_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pylm.precision.GROWTH_STEPS", 3)
    precision = Precision("float16", torch.device("cpu"), scale=2.0**24, finite_steps=0)
    seen = []
    for unusable in (1.0, 0.0, 0.0, 0.0, 0.0, 1.0):
        precision.update(torch.tensor(unusable))
        seen.append(precision.read())
    assert seen == [(2.0**23, 0), (2.0**23, 1), (2.0**23, 2), (2.0**24, 0), (2.0**24, 1), (2.0**23, 0)]
    stepper = _stepper(dtype="float16")
    stepper.precision = Precision("float16", torch.device("cpu"), scale=2.0**24)
    before = _everything(stepper)
    while stepper.report().in_a_row == stepper.report().skipped and stepper.report().skipped < 20:
        stepper.step(_batch(0))
    assert 0 < stepper.report().skipped < 20, "too large a scale overflows, then fits"
    assert not all(torch.equal(a, b) for a, b in zip(before, _everything(stepper), strict=False))


def test_gradients_in_micro_batches_with_ignored_targets_equal_the_whole() -> None:
    inputs_BT, targets_BT = (tensor.clone() for tensor in _batch(0).tensors)
    targets_BT[0, :9] = -1  # one micro-batch has far fewer targets than the others
    n_targets = int((targets_BT >= 0).sum())
    norms = []
    for micro_batch in (4, 2, 1):
        stepper = _stepper()
        stepper.step(StepBatch((inputs_BT, targets_BT), micro_batch, n_targets))
        norms.append((stepper.report().loss, stepper.report().grad_norm))
    logits_BTV = _stepper().model(inputs_BT)
    mean = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=-1)
    for loss, norm in norms:
        assert loss == pytest.approx(mean.item(), rel=1e-5)
        assert norm == pytest.approx(norms[0][1], rel=1e-5)
