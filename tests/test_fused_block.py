"""A block by the extension against its modules and against float64, and where it is taken."""

import copy
import math

import pytest
import torch
from torch import Tensor

from pylm import _bpe, kernels
from pylm.errors import ConfigError
from pylm.models import fused_block, products
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.models.layers import PlainNorm
from pylm.models.transformer import ResidualBlock

pytestmark = pytest.mark.usefixtures("one_thread")


def _block(**settings: object) -> ResidualBlock:
    config = ModelConfig(
        **{
            "vocab_size": 65,
            "max_context": 64,
            "n_layers": 1,
            "width": 64,
            "n_heads": 4,
            "norm_kind": "layer",
            "norm_gains": "none",
            "qk_norm": True,
            "mlp": "relu2",
            **settings,
        }
    )
    block = build_model(config).blocks[0]
    assert isinstance(block, ResidualBlock)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(0, 0.15, generator=generator)
    return block


def _by_modules(block: ResidualBlock) -> ResidualBlock:
    twin = copy.deepcopy(block)
    twin.fused_heads = lambda *_: None  # type: ignore[method-assign]
    return twin


def _passes(block: ResidualBlock, x_BTD: Tensor, grad_BTD: Tensor, autocast: bool = False) -> list[Tensor]:
    """What comes out, and the gradients of what goes in and of the matrices."""
    x_BTD = x_BTD.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y_BTD = block(x_BTD)
    block.zero_grad()
    y_BTD.backward(grad_BTD.to(y_BTD.dtype))
    gradients = [parameter.grad for parameter in block.parameters()]
    assert x_BTD.grad is not None
    assert all(grad is not None for grad in gradients)
    return [y_BTD.detach(), x_BTD.grad, *(grad.clone() for grad in gradients if grad is not None)]


def _inputs(batch: int, length: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch * length)
    x_BTD, grad_BTD = (torch.randn(batch, length, width, generator=generator) for _ in range(2))
    return x_BTD, grad_BTD


SETTINGS = [
    {},
    {"norm_kind": "rms"},
    {"qk_norm": False, "n_kv_heads": 2},
    {"width": 96, "n_heads": 2, "positions": "learned", "mlp_hidden": 200},
    {"mlp": "swiglu"},
    {"width": 96, "n_heads": 2, "positions": "learned", "mlp": "swiglu", "mlp_hidden": 170},
]


def _adopt_products() -> None:
    if not kernels.have_products():
        pytest.skip("this torch has no MKL that the extension could multiply by")


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("way", ["float32", "float32, whole", "bfloat16"])
def test_it_is_what_the_modules_compute(
    settings: dict[str, object], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    autocast, whole = way == "bfloat16", way == "float32, whole"
    if whole:
        _adopt_products()
    monkeypatch.setattr(fused_block, "_is_small", lambda *_: whole)
    block = _block(**settings)
    x_BTD, grad_BTD = _inputs(3, 37, block.attention.qkv.in_features)
    if autocast:
        x_BTD = x_BTD.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert block.fused_heads(x_BTD, None) is not None
    ours = _passes(block, x_BTD, grad_BTD, autocast)
    theirs = _passes(_by_modules(block), x_BTD, grad_BTD, autocast)
    if settings.get("positions") == "learned":  # the rotary table is of float32
        exact = _passes(copy.deepcopy(block).double(), x_BTD.double(), grad_BTD.double())
    else:
        exact = _passes(_by_modules(block).double(), x_BTD.double(), grad_BTD.double())
    rounding = 2e-2 if autocast else 2e-6
    for mine, other, expected in zip(ours, theirs, exact, strict=True):
        assert mine.dtype == other.dtype
        error, their_error = ((x.double() - expected).norm() / expected.norm() for x in (mine, other))
        assert error < rounding
        assert error < 1.1 * their_error + 1e-7  # no more than the modules'


@pytest.mark.parametrize("mlp", fused_block.ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 5), (7, 40), (13, 64), (2, 500)])
def test_whole_blocks_are_the_same_for_any_number_of_threads_but_for_the_order_of_sums(
    shape: tuple[int, int], mlp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that have nothing to do, sequences that cannot be shared equally, more than go through at once."""
    _adopt_products()
    monkeypatch.setattr(fused_block, "_is_small", lambda *_: True)
    block = _block(mlp=mlp, max_context=500)
    x_BTD, grad_BTD = _inputs(*shape, 64)
    exact = _passes(_by_modules(block).double(), x_BTD.double(), grad_BTD.double())
    heads, norm = block.attention.fused_heads(x_BTD, None), block.attention_norm
    assert heads is not None
    assert isinstance(norm, PlainNorm)
    parts = fused_block.Parts(heads, norm.kind, norm.eps, mlp)
    for n_threads in (1, 2, 3, 16):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        found = []
        for _ in range(2):
            x = x_BTD.clone().requires_grad_()
            y_BTD = fused_block.run(x, parts, block._matrices())
            found.append([y_BTD.detach(), *torch.autograd.grad(y_BTD, [x, *block._matrices()], grad_BTD)])
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
        for mine, expected in zip(found[0], exact, strict=True):
            assert (mine.double() - expected).norm() < 2e-6 * expected.norm()


def test_of_no_sequences_the_gradients_of_whole_blocks_are_zero() -> None:
    _adopt_products()
    block = _block()
    x_BTD = torch.empty(0, 8, 64).requires_grad_()
    heads = block.attention.fused_heads(torch.empty(1, 8, 64), None)
    assert heads is not None
    y_BTD = fused_block.run(x_BTD, fused_block.Parts(heads, "layer", 1e-5, "relu2"), block._matrices())
    y_BTD.sum().backward()
    assert y_BTD.shape == x_BTD.shape
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in block.parameters())


def test_whole_blocks_are_small_ones_of_float32() -> None:
    block, x_BTD = _block(), torch.empty(1, 8, 64)
    matrices = block._matrices()
    if kernels.have_products() and not products.is_faster(x_BTD, matrices[0]):
        assert fused_block._is_small(x_BTD, matrices)
    assert not fused_block._is_small(x_BTD.bfloat16(), matrices)
    assert not fused_block._is_small(x_BTD, tuple(matrix.bfloat16() for matrix in matrices))
    assert not fused_block._is_small(x_BTD, (torch.empty(1024, 1025), *matrices[1:]))


def test_parameters_may_be_emptied_after_a_whole_block() -> None:
    """As FSDP does with those that it has put together."""
    block = _block()
    x_BTD, grad_BTD = _inputs(2, 20, 64)
    block(x_BTD).backward(grad_BTD)
    if not fused_block._is_small(x_BTD, block._matrices()):
        pytest.skip("blocks are not taken whole here")
    assert all(parameter.untyped_storage().resizable() for parameter in block.parameters())


@pytest.mark.parametrize("autocast", [False, True])
def test_threads_change_no_bit_of_its_own(autocast: bool) -> None:
    """Of the extension's part; how torch adds up products may depend on its threads."""
    dtype = torch.bfloat16 if autocast else torch.float32
    x_ND, sums_ND = torch.randn(700, 64).to(dtype), torch.randn(700, 64).to(dtype)
    found = []
    for n_threads in (1, 2, 5):
        sums, normed, scale = sums_ND.clone(), torch.empty_like(x_ND), torch.empty(700)
        grad = sums_ND.clone()
        arrays = {
            name: kernels.as_array(tensor)
            for name, tensor in {
                "x": x_ND,
                "sums": sums,
                "normed": normed,
                "scale": scale,
                "grad": grad,
            }.items()
        }
        _bpe.add_and_normalise(
            arrays["x"], arrays["sums"], arrays["normed"], arrays["scale"], "layer", 1e-5, n_threads
        )
        _bpe.normalise_backward(
            arrays["normed"], arrays["scale"], arrays["x"], arrays["grad"], "layer", n_threads
        )
        _bpe.squared_relu(arrays["sums"], n_threads)
        gated, grad_projected = torch.empty(700, 32).to(dtype), torch.empty_like(x_ND)
        gated_array = kernels.as_array(gated)
        _bpe.swiglu(arrays["x"], gated_array, n_threads)
        _bpe.swiglu_backward(arrays["x"], gated_array, kernels.as_array(grad_projected), n_threads)
        found.append((sums, normed, scale, grad, gated, grad_projected))
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_it_changes_nothing_that_it_is_given() -> None:
    block = _block()
    x_BTD, grad_BTD = _inputs(2, 20, 64)
    x_BTD.requires_grad_()
    x_before, grad_before = x_BTD.detach().clone(), grad_BTD.clone()
    y_BTD = block(x_BTD)
    y_before = y_BTD.detach().clone()
    for _ in range(2):
        y_BTD.backward(grad_BTD, retain_graph=True)
    assert torch.equal(x_BTD, x_before)
    assert torch.equal(grad_BTD, grad_before)
    assert torch.equal(y_BTD, y_before)
    (again,) = torch.autograd.grad(block(x_BTD), x_BTD, grad_BTD)
    assert x_BTD.grad is not None
    assert torch.equal(x_BTD.grad, 2 * again)


def test_what_is_given_may_stand_in_memory_in_any_order() -> None:
    block = _block()
    x_BTD, grad_BTD = _inputs(2, 20, 64)
    expected = _passes(block, x_BTD, grad_BTD)
    across_BTD, grad_across_BTD = (x.transpose(0, 2).contiguous().transpose(0, 2) for x in (x_BTD, grad_BTD))
    assert not across_BTD.is_contiguous()
    found = _passes(block, across_BTD, grad_across_BTD)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    x_BTD.requires_grad_()
    block(x_BTD).sum().backward()  # whose gradient is one number, seen everywhere
    assert x_BTD.grad is not None
    (same,) = torch.autograd.grad(block(x_BTD), x_BTD, torch.ones_like(grad_BTD))
    assert torch.equal(x_BTD.grad, same)


def test_recomputed_it_is_the_same() -> None:
    block = _block()
    x_BTD, grad_BTD = _inputs(2, 20, 64)
    found = []
    for run in (block, lambda x: block.recomputed(x, None)):
        x = x_BTD.clone().requires_grad_()
        y_BTD = run(x)
        found.append([y_BTD.detach(), *torch.autograd.grad(y_BTD, [x, *block.parameters()], grad_BTD)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_numbers_that_are_none_come_through() -> None:
    block = _block()
    x_BTD, _ = _inputs(2, 8, 64)
    x_BTD[1, 3, 5] = math.nan
    y_BTD = block(x_BTD)
    assert torch.equal(y_BTD.isnan().any(-1), _by_modules(block)(x_BTD).isnan().any(-1))
    numbers = torch.tensor([[-1.0, 0.0, 3.0, math.inf, -math.inf, math.nan, 1e30, -0.0, 1e-30]])
    squared = numbers.clone()
    _bpe.squared_relu(kernels.as_array(squared), 1)
    torch.testing.assert_close(squared, torch.relu(numbers).square(), equal_nan=True, rtol=0, atol=0)
    grad = torch.ones_like(numbers)
    _bpe.squared_relu_backward(kernels.as_array(squared), kernels.as_array(grad), 1)
    # What is so small that its square is 0 has the gradient 0 for 2e-30.
    expected = 2 * torch.relu(numbers)
    expected[0, -1] = 0
    expected[0, 6] = math.inf  # its square is
    torch.testing.assert_close(grad, expected, equal_nan=True, rtol=0, atol=0)


def test_the_root_of_a_square_is_what_was_squared() -> None:
    """So relu(x) need not be kept beside its square."""
    numbers = torch.randn(1, 1 << 16).abs().mul_(torch.exp2(torch.randint(-40, 40, (1, 1 << 16))))
    squared, grad = numbers.clone(), torch.ones_like(numbers)
    _bpe.squared_relu(kernels.as_array(squared), 1)
    _bpe.squared_relu_backward(kernels.as_array(squared), kernels.as_array(grad), 1)
    assert torch.equal(grad, 2 * numbers)


@pytest.mark.parametrize("width", [1, 16, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swiglu_is_what_float64_says(width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(width)
    # Up to where e^x is hardly a number any more, and beyond.
    sizes_N2 = torch.exp2(torch.randint(-20, 8, (300, 2 * width), generator=generator))
    projected_N2 = (sizes_N2 * torch.randn(300, 2 * width, generator=generator)).to(dtype)
    grad_N = torch.randn(300, width, generator=generator).to(dtype)
    gated_N, grad_N2 = torch.empty_like(grad_N), torch.empty_like(projected_N2)
    arrays = [kernels.as_array(tensor) for tensor in (projected_N2, gated_N, grad_N, grad_N2)]
    _bpe.swiglu(arrays[0], arrays[1], 2)
    _bpe.swiglu_backward(arrays[0], arrays[2], arrays[3], 2)
    exact_N2 = projected_N2.double().requires_grad_()
    x_N, y_N = exact_N2.chunk(2, dim=1)
    exact_N = torch.nn.functional.silu(x_N) * y_N
    exact_N.backward(grad_N.double())
    assert exact_N2.grad is not None
    rounding = 1e-6 if dtype == torch.float32 else 4e-3
    # Where 1 + x (1 - sigmoid(x)) is near 0 its terms are not: so a little absolute error as well.
    torch.testing.assert_close(gated_N.double(), exact_N.detach(), rtol=rounding, atol=1e-30)
    scale_N = (grad_N * projected_N2[:, width:]).abs().double()
    errors_N2 = (grad_N2.double() - exact_N2.grad).abs()
    assert (errors_N2[:, :width] <= rounding * (exact_N2.grad[:, :width].abs() + scale_N)).all()
    torch.testing.assert_close(
        grad_N2[:, width:].double(), exact_N2.grad[:, width:], rtol=rounding, atol=1e-30
    )


def test_swiglu_of_what_is_no_number_and_of_what_is_endless() -> None:
    x = torch.tensor([math.nan, 0.0, math.inf, -math.inf, -1000.0, 1000.0, -0.0])
    projected = torch.cat((x, torch.full_like(x, 2.0)))[None]
    gated = torch.empty(1, len(x))
    _bpe.swiglu(kernels.as_array(projected), kernels.as_array(gated), 1)
    # -inf times 0 is none either, as in torch.
    assert gated.isnan().tolist() == [[True, False, False, True, False, False, False]]
    assert gated.nan_to_num(7.0, posinf=math.inf).tolist() == [[7.0, 0.0, math.inf, 7.0, 0.0, 2000.0, 0.0]]


def test_where_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_are_fast", lambda: True)
    x_BTD = torch.empty(torch.get_num_threads(), 8, 64)
    assert _block().fused_heads(x_BTD, None) is not None
    assert _block().fused_heads(x_BTD, _block().new_cache(8)) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert _block().fused_heads(x_BTD, None) is None  # the sums would be of float32
        assert _block().fused_heads(x_BTD.bfloat16(), None) is not None
    for other in ({"bias": True}, {"mlp": "gelu"}, {"norm": "post"}, {"dropout": 0.1}, {"width": 32}):
        assert _block(**other).train().fused_heads(x_BTD, None) is None
    gains = _block(norm_gains="ones", qk_norm=False)
    x_BTD.normal_()
    torch.testing.assert_close(gains(x_BTD), _by_modules(gains)(x_BTD), rtol=0, atol=0)


def test_bad_arrays_get_a_line() -> None:
    numbers, scale = torch.ones(4, 32), torch.ones(4)
    rows, more, short, ones = (
        kernels.as_array(tensor) for tensor in (numbers, torch.ones(5, 32), torch.ones(4, 24), scale)
    )
    with pytest.raises(ConfigError, match="160 numbers beside 128: expected as many"):
        _bpe.add_and_normalise(more, rows, rows.copy(), ones, "rms", 1e-5, 1)
    with pytest.raises(
        ConfigError, match="96 numbers are not 4 rows of as many features each, a multiple of 16"
    ):
        _bpe.add_and_normalise(None, short, short.copy(), ones, "rms", 1e-5, 1)
    with pytest.raises(ConfigError, match='"batch" is none of none, layer, rms'):
        _bpe.normalise_backward(rows, ones, rows.copy(), rows.copy(), "batch", 1)
    with pytest.raises(ConfigError, match="128 numbers beside 160"):
        _bpe.normalise_backward(rows, kernels.as_array(torch.ones(5)), rows.copy(), more, "rms", 1)
    with pytest.raises(ConfigError, match="160 numbers beside 128"):
        _bpe.squared_relu_backward(rows, more, 1)
    halves = kernels.as_array(torch.ones(4, 16))
    with pytest.raises(ConfigError, match="160 numbers beside 128"):
        _bpe.swiglu(more, halves, 1)
    with pytest.raises(ConfigError, match="160 numbers beside 128"):
        _bpe.swiglu_backward(rows, halves, more, 1)
    with pytest.raises(ConfigError, match="0 numbers are not rows of 0 features"):
        _bpe.swiglu(rows, kernels.as_array(torch.ones(4, 0)), 1)
    with pytest.raises(TypeError):
        _bpe.squared_relu_backward(rows, kernels.as_array(numbers.bfloat16()), 1)
    assert numbers.eq(1).all()


def test_bad_blocks_get_a_line() -> None:
    _adopt_products()
    heads = (4, 4, "none", 0.0, None)
    x, kept = torch.ones(2, 8, 64).numpy(), torch.empty(2 * 8 * (2 * 65 + 192 + 64 + 256)).numpy()
    matrices = tuple(torch.ones(shape).numpy() for shape in ((192, 64), (64, 64), (256, 64), (64, 256)))
    parts = (heads, "layer", 1e-5, "relu2")
    at_once = _bpe.run_block(x, matrices, parts, x.copy(), kept, 1)
    assert at_once == 2
    with pytest.raises(ConfigError, match='the activation "gelu" is none of relu2, swiglu'):
        _bpe.run_block(x, matrices, (heads, "layer", 1e-5, "gelu"), x.copy(), kept, 1)
    with pytest.raises(
        ConfigError, match="1024 numbers, 10271 to keep and matrices of 12288, 4096, 16384 and 16384"
    ):
        _bpe.run_block(x, matrices, parts, x.copy(), kept[1:], 1)
    with pytest.raises(ConfigError, match="matrices of 12288, 4096, 16384 and 16320 are not"):
        _bpe.run_block(x, (*matrices[:3], matrices[3][:, 1:].copy()), parts, x.copy(), kept, 1)
    with pytest.raises(ConfigError, match="512 numbers for a block of 1024: expected as many"):
        _bpe.run_block(x, matrices, parts, x[:1].copy(), kept, 1)
    places = tuple(matrix.copy() for matrix in matrices)
    with pytest.raises(
        ConfigError, match="0 sequences at once and places for gradients: expected some, 1024 numbers"
    ):
        _bpe.run_block_backward(kept, 0, matrices, parts, x, x.copy(), places, 1)
    with pytest.raises(ConfigError, match="expected some, 1024 numbers and matrices of"):
        _bpe.run_block_backward(kept, 2, matrices, parts, x, x.copy(), (*places[:3], places[1].copy()), 1)
    with pytest.raises(TypeError):
        _bpe.run_block(x.astype("float64"), matrices, parts, x.copy(), kept, 1)
