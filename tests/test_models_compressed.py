"""S0's compressed attention: the properties of its definition, and both fast paths against a loop over queries."""

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pylm.errors import ConfigError
from pylm.models import compressed_blocks
from pylm.models import layout as layouts
from pylm.models.attention import Attention
from pylm.models.build import build_model
from pylm.models.compressed import CompressedAttention
from pylm.models.compression import Compression, dense_bias
from pylm.models.config import ModelConfig
from pylm.models.layout import Layout, projection
from pylm.models.presets import find_preset
from pylm.models.rotary import Rotary

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = dataclasses.replace(
    find_preset("compressed-373m").model,
    vocab_size=64,
    max_context=400,
    width=16,
    n_heads=2,
    n_layers=2,
    mlp_hidden=8,
)
LAYOUTS = [
    Layout.of(10, 2, 2),
    Layout.of(4, 1, 1),
    Layout.of(6, 2, 3),
    Layout.of(5, 5, 2),
    Layout.of(1, 1, 2),
]


def by_definition(layout: Layout, kind: str, q: Tensor, k: Tensor, v: Tensor, rope_base: float) -> Tensor:
    """Query after query, chunk after chunk, as the definition reads; q, k, v (T, d) before rotation."""
    c, b = layout.chunk, layout.boundary
    matrices = dict(
        zip(
            layout.ratios,
            torch.from_numpy(projection(layout, kind)).double().split(layout.sizes),
            strict=True,
        )
    )

    def turn(x: Tensor, position: float) -> Tensor:
        if not rope_base:
            return x
        angles = position * rope_base ** (-torch.arange(0, x.shape[0], 2, dtype=torch.float64) / x.shape[0])
        pairs = torch.view_as_complex(x.view(-1, 2)) * torch.polar(torch.ones_like(angles), angles)
        return torch.view_as_real(pairs).view(-1)

    outputs = []
    for t in range(q.shape[0]):
        m, query, scores, values = t // c, turn(q[t], t), [], []
        for j in range(m + 1):
            if j < b or m - j < b:
                for p in range(j * c, min((j + 1) * c, t + 1)):
                    scores.append(query @ turn(k[p], p) / q.shape[1] ** 0.5)
                    values.append(v[p])
                continue
            r = layout.ratios[min(m - j - b, len(layout.ratios) - 1)]
            for slot, weights in enumerate(matrices[r]):
                place = j * c + slot * r + (r - 1) / 2
                key = turn(weights @ k[j * c : (j + 1) * c], place)
                scores.append(query @ key / q.shape[1] ** 0.5 + math.log(r))
                values.append(weights @ v[j * c : (j + 1) * c])
        outputs.append(torch.stack(scores).softmax(0) @ torch.stack(values))
    return torch.stack(outputs)


def with_layout(layout: Layout, **settings: object) -> ModelConfig:
    return dataclasses.replace(
        CONFIG,
        proj_ratio=layout.chunk,
        proj_ratio_min=layout.ratios[0],
        num_keep_boundary_chunk=layout.boundary,
        **settings,
    )


def layer(config: ModelConfig) -> CompressedAttention:
    """One attention layer in float64, its parameters N(0, 0.3)."""
    attention = build_model(config).blocks[0].attention
    assert isinstance(attention, CompressedAttention)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return attention.double()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dense path beyond what the blocks need, and blocks of a few chunks."""
    monkeypatch.setattr(layouts, "DENSE_TOKENS", 0)
    monkeypatch.setitem(layouts.BLOCK_SCORES, "cpu", 2_000)


@torch.no_grad()
@pytest.mark.parametrize(
    ("layout", "kind"),
    [*((layout, "mean") for layout in LAYOUTS), (LAYOUTS[0], "gaussian"), (LAYOUTS[0], "orthogonal")],
    ids=str,
)
@pytest.mark.parametrize("positions", ["rope", "none"])
@pytest.mark.parametrize("path", ["dense", "blocks"])
def test_both_paths_equal_the_definition(
    layout: Layout, kind: str, positions: str, path: str, request: pytest.FixtureRequest
) -> None:
    if path == "blocks":
        request.getfixturevalue("small_blocks")
    config = with_layout(layout, positions=positions, projection=kind)
    attention = layer(config)
    x_BTD = torch.randn(2, 76, 16, dtype=torch.float64)
    q, k, v = (part.view(2, 76, 2, 8) for part in attention.qkv(x_BTD).chunk(3, dim=-1))
    mixed = attention.mix(x_BTD)
    base = config.rope_base if positions == "rope" else 0.0
    for batch, head in ((0, 0), (1, 1))[: 1 if kind == "mean" else 2]:
        expected = by_definition(layout, kind, q[batch, :, head], k[batch, :, head], v[batch, :, head], base)
        torch.testing.assert_close(mixed[batch, head], expected, rtol=1e-5, atol=1e-6)  # tables are float32


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("length", [130, 137])
@pytest.mark.parametrize("positions", ["rope", "none"])
def test_gradients_of_the_blocks_equal_those_of_the_dense_path(
    layout: Layout, length: int, positions: str
) -> None:
    shared = layer(with_layout(layout, positions=positions)).compression
    inputs = [torch.randn(2, length, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    grad = torch.randn(2, length, 2, 8, dtype=torch.float64)
    dense, blocks = (
        torch.autograd.grad(attend(shared, *inputs), inputs, grad)
        for attend in (compressed_blocks.dense_attention, compressed_blocks.block_attention)
    )
    for ours, theirs in zip(blocks, dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # tables are float32


@pytest.mark.parametrize(("length", "n_keys"), [(64, 42), (8_192, 853)])
def test_the_last_query_sees_so_many_keys(length: int, n_keys: int) -> None:
    assert Layout.of(10, 2, 2).n_keys(length - 1) == n_keys


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_number_of_keys_is_that_of_the_mask(layout: Layout) -> None:
    seen = torch.isfinite(dense_bias(layout, 150, torch.device("cpu"))).sum(1)
    assert [layout.n_keys(t) for t in range(150)] == seen.tolist()


@pytest.mark.parametrize("length", [40, 64, 256, 257, 300, 400])
def test_the_products_are_those_that_torch_counts(length: int) -> None:
    attention = build_model(CONFIG, device="meta").blocks[0].attention
    attention.qkv = torch.nn.Identity()
    with FlopCounterMode(display=False) as counter:
        attention.mix(torch.empty(3, length, 48, device="meta"))
    layout, features = LAYOUTS[0], 8
    products = 2 * layout.n_scores(length, 6, "meta") + 2 * layout.chunk * layout.n_pooled(length, 6, "meta")
    assert counter.get_total_flops() == 2 * 3 * 2 * features * products


@pytest.mark.usefixtures("small_blocks")
def test_blocks_are_causal(future_leak: Any) -> None:
    config = dataclasses.replace(CONFIG, max_context=97)
    assert future_leak(build_model(config)) == 0.0


def full_attention(attention: CompressedAttention, x_BTD: Tensor) -> Tensor:
    return Attention.mix(attention, x_BTD)


@pytest.mark.usefixtures("small_blocks")
def test_ratio_one_is_full_attention() -> None:
    attention = layer(dataclasses.replace(CONFIG, proj_ratio=1, proj_ratio_min=1))
    x_BTD = torch.randn(2, 99, 16, dtype=torch.float64)
    torch.testing.assert_close(attention.mix(x_BTD), full_attention(attention, x_BTD), rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("small_blocks")
def test_forty_tokens_are_full_attention_and_forty_one_are_not() -> None:
    attention = layer(CONFIG)
    x_BTD = torch.randn(2, 61, 16, dtype=torch.float64)
    short, full = attention.mix(x_BTD[:, :40]), full_attention(attention, x_BTD)
    torch.testing.assert_close(short, full[:, :, :40])
    longer = attention.mix(x_BTD)
    torch.testing.assert_close(longer[:, :, :40], full[:, :, :40], rtol=1e-6, atol=1e-7)
    assert (longer[:, :, 40] - full[:, :, 40]).abs().max() > 1e-3


@pytest.mark.usefixtures("small_blocks")
def test_keys_and_values_constant_inside_chunks_lose_nothing_without_positions() -> None:
    attention = layer(dataclasses.replace(CONFIG, positions="none"))
    x_BTD = torch.randn(2, 20, 16, dtype=torch.float64).repeat_interleave(10, dim=1)[:, :197]
    torch.testing.assert_close(attention.mix(x_BTD), full_attention(attention, x_BTD), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["mean", "gaussian", "orthogonal"])
def test_the_fixed_matrix_is_fixed_and_of_its_kind(kind: str) -> None:
    layout = Layout.of(10, 2, 2)
    matrix = torch.from_numpy(projection(layout, kind))
    assert torch.equal(matrix, torch.from_numpy(projection(layout, kind)))
    for ratio, rows in zip(layout.ratios, matrix.split(layout.sizes), strict=True):
        if kind == "mean":
            assert torch.equal(rows.count_nonzero(1), torch.full((10 // ratio,), ratio))
            torch.testing.assert_close(rows.sum(1), torch.ones(10 // ratio))
        if kind != "gaussian":
            torch.testing.assert_close(rows @ rows.T, torch.eye(10 // ratio) / ratio)
        else:
            assert 0.2 < (rows.square().sum(1).mean() * ratio).item() < 3
    compression = Compression(CONFIG, None)
    assert not list(compression.parameters())
    assert not compression.state_dict()


@pytest.mark.parametrize("prompt", [1, 9, 10, 38, 61, 200])
def test_the_cache_gives_the_uncached_logits_for_any_prompt(prompt: int) -> None:
    model = build_model(dataclasses.replace(CONFIG, max_context=260)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(64, (2, 260))
    with torch.no_grad():
        whole = model(tokens)
        cache = model.new_cache(2)
        parts = [model(tokens[:, :prompt], cache)]
        while cache.length < 260:
            n_new = min(1 if cache.length % 3 else 7, 260 - cache.length)
            parts.append(model(tokens[:, cache.length : cache.length + n_new], cache))
    cached = torch.cat(parts, dim=1)
    assert (cached - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_the_cache_shrinks() -> None:
    config = dataclasses.replace(CONFIG, max_context=4_000, n_layers=1)
    sizes = {}
    for kind in ("full", "compressed"):
        model = build_model(dataclasses.replace(config, attention=kind))
        cache = model.new_cache(1)
        with torch.no_grad():
            model(torch.randint(64, (1, 4_000)), cache)
        sizes[kind] = cache.size_bytes()
    assert sizes["compressed"] < 0.2 * sizes["full"]


def test_what_training_keeps_is_linear_in_positions_and_less_than_full_attention_keeps() -> None:
    kept = {}
    for kind, length in (("compressed", 2_000), ("compressed", 4_000), ("full", 4_000)):
        config = dataclasses.replace(CONFIG, max_context=4_000, attention=kind)
        attention = build_model(config).blocks[0].attention
        storages: dict[int, int] = {}

        def keep(tensor: Tensor, into: dict[int, int] = storages) -> Tensor:
            into[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            attention(torch.randn(1, length, 16))
        tables = {buffer.untyped_storage().data_ptr() for buffer in attention.buffers()}
        kept[kind, length] = sum(size for pointer, size in storages.items() if pointer not in tables)
    assert kept["compressed", 4_000] < 2.01 * kept["compressed", 2_000]
    assert kept["compressed", 4_000] < kept["full", 4_000]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("length", [300, 1_024, 8_192, 50_000])
def test_scores_held_at_a_time_are_at_most_sixteen_a_key_or_those_of_one_chunk(
    length: int, device: str
) -> None:
    layout, n_heads = Layout.of(10, 2, 2), 16
    for first, last in layout.blocks(length, n_heads, device):
        scores = n_heads * (last - first) * layout.chunk * (layout.n_far(first + 1) + layout.n_near)
        assert last - first == 1 or scores <= 16 * length * n_heads


def test_a_layer_trains_after_inference_mode_filled_the_shared_masks() -> None:
    attention = layer(CONFIG).float()
    with torch.inference_mode():
        attention.mix(torch.randn(1, 64, 16))
    attention.mix(torch.randn(1, 64, 16)).sum().backward()


def test_bfloat16_stays_near_float32() -> None:
    attention = layer(CONFIG).float()
    x_BTD = torch.randn(1, 300, 16)
    exact = attention.mix(x_BTD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = attention.mix(x_BTD)
    assert rough.dtype == torch.bfloat16
    assert F.mse_loss(rough.float(), exact) < 1e-3 * exact.square().mean()
    rough.float().square().mean().backward()


def test_grouped_queries_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"has no grouped queries: model\.n_kv_heads is 1"):
        dataclasses.replace(CONFIG, n_kv_heads=1)


def test_slots_stand_at_their_mean_positions() -> None:
    positions = Layout.of(4, 2, 1).slot_positions(2)
    assert positions.tolist() == [0.5, 2.5, 1.5, 4.5, 6.5, 5.5]
    assert Rotary(positions, 4, 10.0).table_Td2.shape == (6, 2, 2)
