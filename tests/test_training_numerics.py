"""The numerics that others got wrong: properties of loss, schedule, optimizer and evaluation."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file

from pylm import checkpoint, muon
from pylm.checkpoint import State
from pylm.clock import Clock
from pylm.config import OptimizerConfig, ScheduleConfig, TrainConfig
from pylm.evaluate import evaluate
from pylm.loss import summed_cross_entropy
from pylm.models.build import Decoder, build_model
from pylm.models.config import ModelConfig
from pylm.muon import Muon
from pylm.optim import build_optimizers, learning_rate_factor

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


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_table_is_written_once(tied: bool, tmp_path: Path) -> None:
    model = build_model(replace(SHAPE, tied=tied), seed=1)
    checkpoint.save(tmp_path, State(step=1), model, build_optimizers(model, OptimizerConfig()))
    file = tmp_path / "checkpoints" / "step-1" / "model.safetensors"
    tables = [name for name, tensor in load_file(file).items() if tensor.shape == (37, 16)]
    assert len(tables) == (1 if tied else 2)
    other = build_model(replace(SHAPE, tied=tied), seed=2)
    checkpoint.load_weights(tmp_path, 1, other)
    assert torch.equal(other.head_weight, model.head_weight)


def test_weight_decay_touches_matrices_only() -> None:
    model = _model()
    (optimizer,) = build_optimizers(model, OptimizerConfig(weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.3 if parameter.dim() >= 2 else 0.0), name
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_the_first_step_is_not_at_full_rate_and_the_last_is_at_the_final_fraction() -> None:
    config = ScheduleConfig(kind="cosine", warmup=10, final_fraction=0.1)
    clock = Clock(TrainConfig(steps=100), config, 0.0, 0.0)
    rates = [
        learning_rate_factor(clock.warm(step), clock.schedule_progress(step), config) for step in range(100)
    ]
    assert 0 < rates[0] < 0.2
    assert rates[10] == pytest.approx(1.0)
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)
    assert 0.1 < rates[-1] < 0.102


@pytest.mark.parametrize("kind", ["linear", "wsd", "constant"])
def test_schedules_end_where_they_say(kind: str) -> None:
    config = ScheduleConfig(kind=kind, warmup=0, final_fraction=0.0)
    assert learning_rate_factor(1.0, 0.0, config) == 1.0
    assert learning_rate_factor(1.0, 1.0, config) == (1.0 if kind == "constant" else 0.0)


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


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_one_batch_is_overfitted(name: str) -> None:
    model = _model()
    optimizers = build_optimizers(model, OptimizerConfig(name=name, lr=1e-2, weight_decay=0.0))
    ids_BL = torch.randint(37, (4, 17), generator=torch.Generator().manual_seed(0))
    for _ in range(150):
        loss = summed_cross_entropy(model, ids_BL[:, :-1], ids_BL[:, 1:]) / (4 * 16)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert loss.item() < 0.1


def test_muon_and_adamw_share_the_parameters() -> None:
    model = _model()
    matrices, adamw = build_optimizers(model, OptimizerConfig(name="muon", weight_decay=0.3))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    mine = {names[id(p)] for group in matrices.param_groups for p in group["params"]}
    rest = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert mine == {name for name in names.values() if name.startswith("blocks.") and "norm" not in name}
    assert mine | rest == set(names.values())
    assert not mine & rest


def _slow_muon(gradients: list[torch.Tensor], lr: float, momentum: float) -> torch.Tensor:
    """One matrix, by the definition: the momentum's singular values replaced by about one."""
    weight, average = torch.zeros_like(gradients[0]), torch.zeros_like(gradients[0])
    for gradient in gradients:
        average = momentum * average + (1 - momentum) * gradient
        update = momentum * average + (1 - momentum) * gradient
        u, s, v = torch.linalg.svd(update, full_matrices=False)
        s = s / s.norm()
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        weight -= lr * max(1, weight.shape[0] / weight.shape[1]) ** 0.5 * (u * s) @ v
    return weight


def test_muon_in_bfloat16_is_what_it_is_in_float32_but_for_rounding() -> None:
    """Large matrices alone, tall ones turned to stand with wide ones."""
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=generator) for shape in ((256, 128), (128, 256), (64, 160))]
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        optimizer = Muon([(p, (len(p),)) for p in parameters], 1.0, 0.9, 0.0, dtype=dtype)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        found.append([parameter.detach() for parameter in parameters])
    for gradient, one, other in zip(gradients, *found, strict=True):
        slow = _slow_muon([gradient], 1.0, 0.9)
        assert torch.allclose(one, slow, atol=1e-5)
        assert (other - slow).norm() < 2e-2 * slow.norm()
        assert torch.equal(one, other) == (min(gradient.shape) < 96)


@pytest.mark.parametrize("n_at_once", [1, 1 << 24])
def test_muon_orthogonalises_each_stacked_matrix_by_itself(
    n_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "STACKED_NUMBERS", n_at_once)
    generator = torch.Generator().manual_seed(0)
    parts = (4, 6)
    stacked = torch.nn.Parameter(torch.zeros(10, 6))
    batched = torch.nn.Parameter(torch.zeros(3, 5, 7))
    optimizer = Muon([(stacked, parts), (batched, (5,))], lr=0.1, momentum=0.9, weight_decay=0.0)
    history: list[tuple[torch.Tensor, torch.Tensor]] = []
    for _ in range(3):
        stacked.grad = torch.randn(10, 6, generator=generator)
        batched.grad = torch.randn(3, 5, 7, generator=generator)
        history.append((stacked.grad.clone(), batched.grad.clone()))
        optimizer.step()
    for part, found in enumerate(stacked.detach().split(parts)):
        expected = _slow_muon([gradient.split(parts)[part] for gradient, _ in history], 0.1, 0.9)
        assert torch.allclose(found, expected, atol=1e-5)
    for number in range(3):
        expected = _slow_muon([gradient[number] for _, gradient in history], 0.1, 0.9)
        assert torch.allclose(batched.detach()[number], expected, atol=1e-5)
