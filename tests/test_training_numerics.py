"""The numerics that others got wrong: properties of loss, schedule, optimizer and evaluation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pylm.clock import Clock
from pylm.config import OptimizerConfig, ScheduleConfig, TrainConfig
from pylm.evaluate import evaluate
from pylm.loss import summed_cross_entropy
from pylm.models.build import Decoder, build_model
from pylm.models.config import ModelConfig
from pylm.optim import build_optimizer, learning_rate

SHAPE = ModelConfig(vocab_size=37, max_context=16, n_layers=2, width=16, n_heads=2, mlp_hidden=32)


def _model(dropout: float = 0.0) -> Decoder:
    return build_model(ModelConfig(**{**SHAPE.__dict__, "dropout": dropout}), seed=1)


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch() -> None:
    model = _model()
    ids_BL = torch.randint(37, (8, 17), generator=torch.Generator().manual_seed(0))
    gradients = []
    for micro in (8, 4, 1):
        model.zero_grad()
        for part_BL in ids_BL.split(micro):
            (summed_cross_entropy(model, part_BL[:, :-1], part_BL[:, 1:]) / (8 * 16)).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    mean = F.cross_entropy(model(ids_BL[:, :-1]).flatten(0, 1), ids_BL[:, 1:].flatten())
    model.zero_grad()
    mean.backward()
    reference = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    for gradient in gradients:
        assert torch.allclose(gradient, reference, atol=1e-7)


def test_weight_decay_touches_matrices_only() -> None:
    model = _model()
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.3 if parameter.dim() >= 2 else 0.0), name
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_the_first_step_is_not_at_full_rate_and_the_last_is_at_the_final_fraction() -> None:
    config = ScheduleConfig(kind="cosine", warmup=10, final_fraction=0.1)
    clock = Clock(TrainConfig(steps=100), config, 0.0, 0.0)
    rates = [learning_rate(step, clock.schedule_progress(step), 1.0, config) for step in range(100)]
    assert 0 < rates[0] < 0.2
    assert rates[10] == pytest.approx(1.0)
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)
    assert 0.1 < rates[-1] < 0.102


@pytest.mark.parametrize("kind", ["linear", "constant"])
def test_schedules_end_where_they_say(kind: str) -> None:
    config = ScheduleConfig(kind=kind, warmup=0, final_fraction=0.0)
    assert learning_rate(5, 0.0, 2.0, config) == 2.0
    assert learning_rate(5, 1.0, 2.0, config) == (2.0 if kind == "constant" else 0.0)


def _slow_losses(model: Decoder, tokens: list[int], context: int, end_of_text_id: int | None) -> list[float]:
    """-ln p of every target, one position at a time, each window from its own start."""
    sequence = tokens if end_of_text_id is None else [end_of_text_id, *tokens]
    losses = []
    with torch.no_grad():
        for target in range(1, len(sequence)):
            start = (target - 1) // context * context
            logits_V = model(torch.tensor([sequence[start:target]]))[0, -1]
            losses.append(-float(F.log_softmax(logits_V.double(), -1)[sequence[target]]))
    return losses


@pytest.mark.parametrize("end_of_text_id", [None, 36])
@pytest.mark.parametrize("n_tokens", [16, 17, 50, 65])
def test_evaluation_takes_each_target_once(end_of_text_id: int | None, n_tokens: int) -> None:
    model = _model(dropout=0.5)
    tokens = np.random.default_rng(0).integers(0, 36, n_tokens).astype(np.uint16)
    lengths_V = np.arange(37, dtype=np.int64)
    model.train()
    random_state = torch.get_rng_state()
    found = evaluate(model, tokens, lengths_V, end_of_text_id, context=16, batch_size=3, max_tokens=10_000)
    assert model.training, "evaluation must restore training mode"
    assert torch.equal(torch.get_rng_state(), random_state)
    expected = _slow_losses(model.eval(), tokens.tolist(), 16, end_of_text_id)
    targets = tokens if end_of_text_id is not None else tokens[1:]
    assert found.whole
    assert found.n_tokens == len(expected) == len(targets)
    assert found.loss == pytest.approx(np.mean(expected), rel=1e-5)
    assert found.n_bytes == lengths_V[targets].sum()
    assert found.bits_per_byte == pytest.approx(sum(expected) / math.log(2) / found.n_bytes, rel=1e-5)


def test_a_short_evaluation_takes_windows_from_the_whole_split() -> None:
    model = _model()
    tokens = np.random.default_rng(0).integers(0, 36, 1600).astype(np.uint16)
    found = evaluate(model, tokens, np.ones(37, np.int64), 36, context=16, batch_size=8, max_tokens=320)
    assert not found.whole
    assert found.n_tokens == 320


def test_one_batch_is_overfitted() -> None:
    model = _model()
    optimizer = build_optimizer(model, OptimizerConfig(lr=1e-2, weight_decay=0.0))
    ids_BL = torch.randint(37, (4, 17), generator=torch.Generator().manual_seed(0))
    for _ in range(150):
        loss = summed_cross_entropy(model, ids_BL[:, :-1], ids_BL[:, 1:]) / (4 * 16)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.1
