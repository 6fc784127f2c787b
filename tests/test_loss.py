"""The blocked loss head equals plain cross entropy in float64, losses and gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pylm import loss
from pylm.models.build import Decoder, build_model
from pylm.models.config import ModelConfig


def _model(tied: bool, head_bias: bool, vocab_size: int = 301) -> Decoder:
    config = ModelConfig(
        vocab_size=vocab_size, max_context=24, n_layers=1, width=16, n_heads=2, tied=tied, head_bias=head_bias
    )
    model = build_model(config, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)  # logits far from uniform
    return model


def _gradients(model: Decoder) -> list[torch.Tensor]:
    return [p.grad.double() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(("tied", "head_bias"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("block_rows", [16, 50, 1000])
def test_loss_and_gradients_equal_float64(
    tied: bool, head_bias: bool, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loss.BLOCK_BYTES, "cpu", 4 * 301 * block_rows)
    monkeypatch.setattr(loss, "MIN_ROWS", 16)
    monkeypatch.setattr(loss, "PIECE_BYTES", 100 * 16 * 4)
    model = _model(tied, head_bias)
    generator = torch.Generator().manual_seed(0)
    ids_BL = torch.randint(301, (5, 25), generator=generator)
    targets_BT = ids_BL[:, 1:].clone()
    targets_BT[1, 3:7] = loss.IGNORED
    found = loss.summed_cross_entropy(model, ids_BL[:, :-1], targets_BT)
    (found / 7).backward()
    gradients = _gradients(model)

    reference = _model(tied, head_bias).double()
    logits_BTV = reference(ids_BL[:, :-1])
    expected = F.cross_entropy(
        logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="sum", ignore_index=loss.IGNORED
    )
    (expected / 7).backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for gradient, exact in zip(gradients, _gradients(reference), strict=True):
        assert (gradient - exact).norm() <= 1e-5 * exact.norm()


def test_a_tied_matrix_has_one_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding's is added to the head's where that lies: a sum of its own is 800 MB more at 200,000 ids."""
    made: list[int] = []
    make = loss._Head.matrix_gradient

    def noted(*arguments: Any) -> torch.Tensor:
        gradient = make(*arguments)
        made.append(gradient.data_ptr())
        return gradient

    monkeypatch.setattr(loss._Head, "matrix_gradient", noted)
    model = _model(tied=True, head_bias=False)
    ids_BL = torch.randint(301, (5, 25))
    loss.summed_cross_entropy(model, ids_BL[:, :-1], ids_BL[:, 1:]).backward()
    gradient = model.embedding.weight.grad
    assert gradient is not None
    assert gradient.data_ptr() == made[-1]


def test_target_losses_are_the_terms_of_the_sum() -> None:
    model = _model(tied=True, head_bias=False)
    ids_BL = torch.randint(301, (5, 25), generator=torch.Generator().manual_seed(0))
    targets_BT = ids_BL[:, 1:].clone()
    targets_BT[0, 0] = loss.IGNORED
    losses_BT = loss.target_losses(model, ids_BL[:, :-1], targets_BT)
    assert losses_BT.shape == targets_BT.shape
    assert losses_BT[0, 0] == 0
    whole = loss.summed_cross_entropy(model, ids_BL[:, :-1], targets_BT)
    assert losses_BT.sum().item() == pytest.approx(whole.item(), rel=1e-6)
