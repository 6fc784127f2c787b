"""The fast products and attentions of a CPU equal torch's plain ones, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from pylm.models import explicit, layers, products


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiply by oneDNN, whatever the processor."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: True)


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_a_linear_layer_by_onednn_is_the_linear_layer(bias: bool, turned: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 9, 24, generator=generator)
    if turned:
        x = x.transpose(0, 1)
    weight_MK, bias_M = torch.randn(17, 24, generator=generator), torch.randn(17, generator=generator)
    found, expected = ([t.detach().requires_grad_() for t in (x, weight_MK, bias_M)] for _ in range(2))
    y = products.linear(found[0], found[1], found[2] if bias else None)
    assert type(y.grad_fn).__name__ == "_LinearBackward"
    exact = F.linear(*(t.double() for t in expected[: 2 + bias]))
    towards = torch.randn(y.shape, generator=generator)
    y.backward(towards)
    exact.backward(towards.double())
    assert torch.allclose(y.double(), exact, atol=1e-5)
    for a, b in zip(found[: 2 + bias], expected, strict=False):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad - b.grad).norm() <= 1e-6 * b.grad.norm()


@pytest.mark.usefixtures("onednn")
def test_few_rows_and_other_types_are_left_to_torch() -> None:
    layer = layers.Linear(24, 17, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.1)
    assert type(layer(torch.ones(3, 24)).grad_fn).__name__ != "_LinearBackward"
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.ones(64, 24))
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("length", [1, 7, 64])
def test_explicit_attention_is_causal_attention(length: int) -> None:
    """In float32, where the two may be compared closely."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, length, 3, 8)
    found, expected = ([], [])  # type: ignore[var-annotated]
    for _ in range(3):
        heads = torch.randn(shape, generator=generator)
        found.append(heads.clone().requires_grad_())
        expected.append(heads.double().requires_grad_())
    towards = torch.randn(2, 3, length, 8, generator=generator)
    y = explicit.causal_attention(*(t.transpose(1, 2) for t in found))
    y.backward(towards)
    exact = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in expected), is_causal=True)
    exact.backward(towards.double())
    assert torch.allclose(y.double(), exact, atol=1e-6)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a.grad.double(), b.grad, atol=1e-5)


def test_explicit_attention_in_bfloat16_errs_no_more_than_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    heads = [torch.randn(2, 3, 64, 16, generator=generator) for _ in range(3)]
    towards = torch.randn(2, 3, 64, 16, generator=generator)
    errors = []
    for attend in (
        explicit.causal_attention,
        lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=True),
    ):
        low = [t.bfloat16().requires_grad_() for t in heads]
        exact = [t.bfloat16().double().requires_grad_() for t in heads]
        attend(*low).backward(towards.bfloat16())
        F.scaled_dot_product_attention(*exact, is_causal=True).backward(towards.bfloat16().double())
        errors.append(
            [(a.grad.double() - b.grad).norm() / b.grad.norm() for a, b in zip(low, exact, strict=True)]
        )
    assert all(ours <= 1.5 * theirs for ours, theirs in zip(*errors, strict=True))


def test_explicit_attention_is_for_short_windows_in_bfloat16() -> None:
    q = torch.zeros(1, 4, 512, 8, dtype=torch.bfloat16)
    assert explicit.is_faster(q, q)
    assert not explicit.is_faster(q.float(), q.float())
    assert not explicit.is_faster(q, q[:, :2])
    longer = torch.zeros(1, 4, 513, 8, dtype=torch.bfloat16)
    assert not explicit.is_faster(longer, longer)


def test_squared_relu_is_the_square_of_relu() -> None:
    x = torch.linspace(-2, 2, 40, dtype=torch.float64).requires_grad_()
    assert torch.equal(layers.ACTIVATIONS["relu2"](x), F.relu(x) ** 2)
    assert torch.autograd.gradcheck(layers.ACTIVATIONS["relu2"], (x,))
