"""Attention by the extension against torch's operations and against float64, and where it is taken."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from pylm import _bpe, kernels
from pylm.errors import ConfigError
from pylm.models import fused
from pylm.models.attention import Attention
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.models.documents import Documents
from pylm.models.stacks import Stack

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [
    (2, 64, 4, 4, 32),
    (3, 37, 4, 2, 16),
    (2, 130, 2, 1, 48),
    (1, 5, 2, 2, 16),
    (2, 1, 1, 1, 16),
    (1, 300, 2, 2, 64),
]


def _attention(n_heads: int, kv_heads: int, size: int, **settings: object) -> Attention:
    config = ModelConfig(
        **{
            "vocab_size": 65,
            "max_context": 320,
            "n_layers": 1,
            "width": n_heads * size,
            "n_heads": n_heads,
            "n_kv_heads": kv_heads,
            "norm_gains": "none",
            "qk_norm": True,
            **settings,
        }
    )
    attention: Attention = build_model(config).blocks[0].attention
    return attention


def _passes(function: object, x_BTD: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x_BTD = x_BTD.clone().requires_grad_()
    y: Tensor = function(x_BTD)  # type: ignore[operator]
    y.backward(grad.to(y.dtype))
    assert x_BTD.grad is not None
    return y.detach(), x_BTD.grad


def _by_torch(attention: Attention, x_BTD: Tensor) -> Tensor:
    return attention.mix(x_BTD).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", [
    {"norm_kind": "layer"}, {"norm_kind": "rms"}, {"qk_norm": False}, {"norm_kind": "layer", "positions": "learned"},
])  # fmt: skip
def test_it_is_what_torch_computes(shape: tuple[int, ...], settings: dict[str, object]) -> None:
    batch, length, n_heads, kv_heads, size = shape
    attention = _attention(n_heads, kv_heads, size, **settings)
    generator = torch.Generator().manual_seed(length)
    with torch.no_grad():
        attention.qkv.weight.normal_(0, 1 / size**0.5, generator=generator)
    x_BTD = torch.randn(batch, length, n_heads * size, generator=generator)
    grad = torch.randn(batch, length, n_heads * size, generator=generator)
    assert attention.fused_heads(x_BTD, None) is not None
    for ours, theirs in zip(
        _passes(attention.values, x_BTD, grad),
        _passes(lambda x: _by_torch(attention, x), x_BTD, grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=5e-5)


def _exact(attention: Attention, x_BTD: Tensor) -> Tensor:
    """In float64, by the definition: without rotary positions, whose table is of float32."""
    q_BTHd, k_BTHd, v_BTHd = (
        attention.qkv(x_BTD).unflatten(-1, (-1, attention.head_size)).split(attention.n_heads, 2)
    )
    q_BTHd, k_BTHd = attention.q_norm(q_BTHd), attention.k_norm(k_BTHd)
    scores = torch.einsum("bthd,bshd->bhts", q_BTHd, k_BTHd) / attention.head_size**0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(later, -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights, v_BTHd).flatten(2)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_it_is_exact_but_for_its_precision(dtype: torch.dtype, rounding: float, norm: str) -> None:
    attention = _attention(4, 4, 32, norm_kind=norm, positions="learned").to(dtype)
    with torch.no_grad():
        attention.qkv.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    x_BTD, grad = (torch.randn(2, 70, 128, generator=generator).to(dtype) for _ in range(2))
    exact = copy.deepcopy(attention).double()
    pairs = zip(
        _passes(attention.values, x_BTD, grad),
        _passes(lambda x: _by_torch(attention, x), x_BTD, grad),
        _passes(lambda x: _exact(exact, x), x_BTD.double(), grad.double()),
        strict=True,
    )
    for ours, theirs, expected in pairs:
        error, other = ((x.double() - expected).norm() / expected.norm() for x in (ours, theirs))
        assert error < rounding
        assert error < 1.1 * other + 1e-7  # no more than torch's


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(dtype: torch.dtype) -> None:
    attention = _attention(4, 2, 16)
    heads = attention.fused_heads(torch.empty(5, 33, 64), None)
    assert heads is not None
    projected_BTE, grad = torch.randn(5, 33, 128).to(dtype), torch.randn(5, 33, 64).to(dtype)
    before = torch.get_num_threads()
    found = []
    try:
        for n_threads in (1, 2, 3, 8):
            torch.set_num_threads(n_threads)
            found.append(_passes(lambda x: fused.mix(x, heads), projected_BTE, grad))
    finally:
        torch.set_num_threads(before)
    for mixed, gradient in found[1:]:
        assert torch.equal(mixed, found[0][0])
        assert torch.equal(gradient, found[0][1])


def test_two_python_threads_at_once() -> None:
    """Each has a pool of torch's threads of its own."""
    heads = _attention(4, 4, 16).fused_heads(torch.empty(4, 40, 64), None)
    assert heads is not None
    inputs = [torch.randn(4, 40, 192) for _ in range(2)]
    expected = [fused.mix(x, heads) for x in inputs]
    found: list[list[Tensor]] = [[], []]

    def work(index: int) -> None:
        for _ in range(50):
            found[index].append(fused.mix(inputs[index], heads))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(mixed, expected[index]) for index in range(2) for mixed in found[index])


def test_where_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncached, whole windows on a CPU of it; with gains, documents, dropout or small heads torch does it."""
    monkeypatch.setattr(kernels, "_are_fast", lambda: True)
    x_BTD = torch.empty(torch.get_num_threads(), 8, 64)
    plain = _attention(4, 4, 16)
    assert plain.fused_heads(x_BTD, None) is not None
    assert plain.fused_heads(x_BTD.bfloat16(), None) is not None
    assert plain.fused_heads(x_BTD.half(), None) is None
    assert plain.fused_heads(x_BTD.double(), None) is None
    assert plain.fused_heads(x_BTD.to("meta"), None) is None
    assert plain.fused_heads(x_BTD, plain.new_cache(8)) is None
    documents = Documents(torch.zeros(len(x_BTD), 8, dtype=torch.int64))
    assert plain.fused_heads(x_BTD, documents) is None
    assert _attention(4, 4, 16, norm_gains="ones").fused_heads(x_BTD, None) is None
    assert _attention(8, 8, 8).fused_heads(x_BTD, None) is None
    dropping = _attention(4, 4, 16, dropout=0.1)
    assert dropping.train().fused_heads(x_BTD, None) is None
    assert dropping.eval().fused_heads(x_BTD, None) is not None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2 * len(x_BTD) + 1)
    assert plain.fused_heads(x_BTD, None) is None  # threads without work
    monkeypatch.undo()
    monkeypatch.setattr(kernels, "_are_fast", lambda: False)
    assert plain.fused_heads(x_BTD, None) is None


def test_stacks_mix_by_it_too() -> None:
    shape = {"family": "stacks", "n_layers": 2, "n_stacks": 2, "width": 64, "n_heads": 4, "max_context": 24}
    rules = {"norm_kind": "layer", "positions": "sinusoid", "bias": True, "mlp": "relu", "tied": False}
    config = ModelConfig(vocab_size=65, **shape, **rules)  # type: ignore[arg-type]
    stack = build_model(config).blocks[0]
    assert isinstance(stack, Stack)
    x_BTD = torch.randn(torch.get_num_threads(), 24, 64)
    assert stack.attention.fused_heads(x_BTD, None) is not None
    ours = stack(x_BTD)
    stack.attention.fused_heads = lambda *_: None  # type: ignore[method-assign]
    torch.testing.assert_close(ours, stack(x_BTD), rtol=1e-5, atol=1e-6)


def test_bad_arrays_get_a_line() -> None:
    def mix(projected: Tensor, mixed: Tensor, *heads: object) -> None:
        _bpe.mix_heads(kernels.as_array(projected), kernels.as_array(mixed), heads, 1)  # type: ignore[arg-type]

    projected, mixed = torch.randn(2, 8, 192), torch.full((2, 8, 64), 7.0)
    with pytest.raises(ConfigError, match="of 24 features, a multiple of 16"):
        mix(projected, mixed, 4, 2, "rms", 1e-5, None)
    with pytest.raises(ConfigError, match="3072 projections and 1008 mixed values"):
        mix(projected, mixed[:, :, :63].contiguous(), 4, 4, "rms", 1e-5, None)
    with pytest.raises(ConfigError, match="12 angles"):
        mix(projected, mixed, 4, 4, "rms", 1e-5, np.zeros(12, dtype=np.float32))
    with pytest.raises(ConfigError, match='"batch" is none of none, layer, rms'):
        mix(projected, mixed, 4, 4, "batch", 1e-5, None)
    with pytest.raises(ConfigError, match="0 heads"):
        mix(projected, mixed, 0, 0, "none", 1e-5, None)
    assert mixed.eq(7).all()
    with pytest.raises(TypeError):
        mix(projected, mixed.bfloat16(), 4, 4, "rms", 1e-5, None)
