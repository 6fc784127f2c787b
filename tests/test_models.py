"""Models: exact counts, causality, gradients, caches, one batch overfitted."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pylm.errors import ConfigError
from pylm.models.build import Decoder, build_model
from pylm.models.config import ModelConfig
from pylm.models.layers import EmbeddingConvolution, RMSNorm
from pylm.models.presets import PRESETS, find_preset
from pylm.models.rotary import Rotary, from_halves, to_halves

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = {"vocab_size": 50, "max_context": 32, "width": 32, "n_heads": 4}
SMALL = ModelConfig(**WIDTHS, n_layers=2)

VARIANTS = {
    "llama": SMALL,
    "no norm": dataclasses.replace(SMALL, norm="none"),
    "post norm": dataclasses.replace(SMALL, norm="post"),
    "layer norm and biases": dataclasses.replace(SMALL, norm_kind="layer", bias=True, init="gpt2"),
    "learned positions": dataclasses.replace(SMALL, positions="learned"),
    "sinusoid": dataclasses.replace(SMALL, positions="sinusoid"),
    "no positions": dataclasses.replace(SMALL, positions="none"),
    "silu": dataclasses.replace(SMALL, mlp="silu"),
    "gelu": dataclasses.replace(SMALL, mlp="gelu"),
    "gelu tanh": dataclasses.replace(SMALL, mlp="gelu_tanh"),
    "relu2": dataclasses.replace(SMALL, mlp="relu2"),
    "untied with head bias": dataclasses.replace(SMALL, tied=False, head_bias=True, init="xavier"),
    "qk norm": dataclasses.replace(SMALL, qk_norm=True),
    "grouped queries": dataclasses.replace(SMALL, n_kv_heads=2, init="torch"),
    "norms without gains": dataclasses.replace(SMALL, norm_gains="none", qk_norm=True, embedding_norm=True),
    "mixed embedding": dataclasses.replace(SMALL, embedding_conv=3, norm_kind="layer", norm_gains="none"),
    "mixed embedding, learned positions": dataclasses.replace(SMALL, embedding_conv=4, positions="learned"),
    "one kv head, qk norm": dataclasses.replace(SMALL, n_kv_heads=1, qk_norm=True),
}

VARIANTS |= {
    "tiny": dataclasses.replace(find_preset("tiny-67k").model, vocab_size=50, max_context=32),
    "tiny with ordinary gains": dataclasses.replace(
        find_preset("tiny-67k").model, vocab_size=50, max_context=32, norm_gains="ones"
    ),
    "stacks": dataclasses.replace(
        find_preset("stacks-577m").model, **WIDTHS, n_layers=4, n_stacks=3, dropout=0.0
    ),
    "narrow stacks": dataclasses.replace(
        find_preset("stacks-454m").model, **WIDTHS, n_layers=16, dropout=0.0
    ),
    "compressed": dataclasses.replace(SMALL, attention="compressed", proj_ratio=4, num_keep_boundary_chunk=1),
    "compressed, no positions": dataclasses.replace(
        SMALL, attention="compressed", proj_ratio=3, proj_ratio_min=1, positions="none", qk_norm=True
    ),
    "gpt2": dataclasses.replace(find_preset("gpt2-124m").model, **WIDTHS, n_layers=2, dropout=0.0),
    "stories": dataclasses.replace(find_preset("stories-22.7m").model, **WIDTHS, n_layers=2),
}

each_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())


def random_tokens(config: ModelConfig, batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_exact_count(name: str) -> None:
    preset = find_preset(name)
    assert build_model(preset.model, device="meta").n_parameters() == preset.n_parameters


@pytest.mark.parametrize(
    ("name", "changes", "count"),
    [
        ("llama-350m", {"mlp_hidden": 4_096}, 435_471_360),  # S3's printed ffn_mult 4
        ("llama-700m", {"mlp_hidden": 5_120}, 879_904_000),
        ("compressed-373m", {"tied": False}, 577_724_416),
        ("compressed-373m", {"positions": "learned"}, 381_293_568),
        ("compressed-373m", {"attention": "full"}, 372_904_960),
        ("tiny-232k", {"vocab_size": 15}, 201_231),  # the characters of `simple`
        ("stories-22.7m", {"vocab_size": 32_000}, 45_224_448),
    ],
)
def test_the_sources_other_counts_come_out(name: str, changes: dict[str, Any], count: int) -> None:
    config = dataclasses.replace(find_preset(name).model, **changes)
    assert build_model(config, device="meta").n_parameters() == count


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("tiny")])
def test_s1s_formula_gives_the_count_whatever_the_heads_and_the_context(name: str) -> None:
    config = dataclasses.replace(find_preset(name).model, n_heads=1, max_context=7)
    v, e, n_layers = config.vocab_size, config.width, config.n_layers
    expected = 2 * v * e + v + n_layers * (12 * e**2 + 10 * e) + 2 * e
    assert build_model(config, device="meta").n_parameters() == expected == find_preset(name).n_parameters


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_takes_its_first_step(name: str) -> None:
    """On the meta device, where nothing is allocated, above 30 million parameters: benches/memory.py trains those."""
    preset = find_preset(name)
    device = "cpu" if preset.n_parameters < 30e6 else "meta"
    model = build_model(preset.model, device=device)
    tokens = torch.zeros(1, 17, dtype=torch.long, device=device)
    F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    if device == "cpu":
        torch.optim.AdamW(model.parameters(), lr=1e-4).step()
        assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("heads", "width"), [(20, 1_024), (24, 1_280)])
def test_a_head_count_that_does_not_divide_is_refused_by_both_numbers(heads: int, width: int) -> None:
    with pytest.raises(ConfigError, match=rf"n_heads {heads} does not divide model\.width {width}"):
        ModelConfig(n_heads=heads, width=width)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("norm", "before", "expected one of none, pre, post"),
        ("n_layers", 0, "expected at least 1"),
        ("dropout", 1.0, "below 1"),
        ("n_kv_heads", 3, "n_kv_heads 3 does not divide model.n_heads 4"),
        ("width", 4, "even head size"),
        ("proj_ratio", 1, "below model.proj_ratio_min 2"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **{field: value})


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="llama-138m"):
        find_preset("llama-138")


@each_variant
def test_no_logit_depends_on_a_later_token(
    config: ModelConfig, future_leak: Callable[[Decoder], float]
) -> None:
    assert future_leak(build_model(config)) == 0.0


@pytest.mark.parametrize("name", ["llama", "tiny", "stacks", "compressed", "gpt2"])
def test_no_logit_depends_on_a_later_token_with_dropout(name: str) -> None:
    """Where a CPU has no fused kernel for attention, and another one applies the mask."""
    config = dataclasses.replace(VARIANTS[name], dropout=0.2)
    model = build_model(config)
    tokens = random_tokens(config, 2, 32)
    changed = torch.cat((tokens[:, :20], (tokens[:, 20:] + 1) % config.vocab_size), dim=1)
    logits = []
    for inputs in (tokens, changed):
        torch.manual_seed(5)
        logits.append(model(inputs))
    assert torch.equal(logits[0][:, :20], logits[1][:, :20])
    assert not torch.equal(logits[0][:, 20:], logits[1][:, 20:])


@each_variant
def test_gradients_reach_every_parameter(config: ModelConfig) -> None:
    model = build_model(config)
    tokens = torch.arange(3 * config.max_context).remainder(config.vocab_size).view(3, -1)
    F.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(-1).flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@each_variant
def test_one_batch_is_overfitted(config: ModelConfig) -> None:
    model = build_model(config)
    tokens = random_tokens(config, 4, 17)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    losses = [1.0]
    while losses[-1] > 0.1 and len(losses) < 400:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] <= 0.1


@each_variant
def test_the_cache_gives_the_uncached_logits(config: ModelConfig) -> None:
    model = build_model(config).eval()
    tokens = random_tokens(config, 3, config.max_context)
    with torch.no_grad():
        whole = model(tokens)
        cache = model.new_cache(3)
        for _ in range(2):  # a reset cache is as good as a new one
            cache.reset()
            sizes = [7, 1, 1, 5, 12, 1, 1, 1, 1, 1, 1]  # a prompt, single tokens, several at once
            parts = [model(part, cache) for part in tokens[:, : sum(sizes)].split(sizes, dim=1)]
            cached = torch.cat(parts, dim=1)
            assert cache.length == sum(sizes) == config.max_context
            assert (cached - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_a_full_context_is_refused_by_both_numbers() -> None:
    model = build_model(SMALL)
    with pytest.raises(ConfigError, match=r"33 tokens exceed model\.max_context, 32"):
        model(random_tokens(SMALL, 1, 33))
    cache = model.new_cache(1, max_tokens=8)
    model(random_tokens(SMALL, 1, 8), cache)
    with pytest.raises(ConfigError, match="9 tokens exceed the cache's max_tokens, 8"):
        model(random_tokens(SMALL, 1, 1), cache)
    with pytest.raises(ConfigError, match="cache for 33 tokens"):
        model.new_cache(1, max_tokens=33)


def test_features_and_head_give_the_logits() -> None:
    model = build_model(dataclasses.replace(SMALL, tied=False, head_bias=True))
    torch.nn.init.normal_(model.head_bias)
    tokens = random_tokens(SMALL, 2, 9)
    expected = model.features(tokens) @ model.head_weight.T + model.head_bias
    torch.testing.assert_close(model(tokens), expected)


def test_an_embedding_is_mixed_with_those_before_it_by_the_weights() -> None:
    model = build_model(dataclasses.replace(SMALL, embedding_conv=3, embedding_norm=True))
    with torch.no_grad():
        model.embedding_convolution.weight.uniform_(-1, 1)  # type: ignore[union-attr]
    tokens_BT = random_tokens(SMALL, 2, 7)
    now_D, before_D, before_that_D = model.embedding_convolution.weight.view(3, -1)  # type: ignore[union-attr]
    x_BTD = model.embedding(tokens_BT)
    last_BD = x_BTD[:, 6] * now_D + x_BTD[:, 5] * before_D + x_BTD[:, 4] * before_that_D
    second_BD = x_BTD[:, 1] * now_D + x_BTD[:, 0] * before_D
    embedded_BTD = model.embed(tokens_BT, 0)
    torch.testing.assert_close(embedded_BTD[:, 6], model.input_norm(last_BD))
    torch.testing.assert_close(embedded_BTD[:, 1], model.input_norm(second_BD))


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_convolution_is_what_autograd_makes_of_its_operations(length: int) -> None:
    """Which is how it goes where documents are masked; here there is one."""
    convolution = EmbeddingConvolution(3, 8).double()
    torch.nn.init.normal_(convolution.weight)
    found = []
    for positions_BT in (None, torch.arange(length).expand(2, length)):
        generator = torch.Generator().manual_seed(length)
        x_BTD, grad_BTD = torch.randn(2, 2, length, 8, generator=generator, dtype=torch.float64)
        x_BTD.requires_grad_()
        y_BTD = convolution(x_BTD, positions_BT)
        found.append((y_BTD, *torch.autograd.grad(y_BTD, [x_BTD, convolution.weight], grad_BTD)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_zero_out_starts_as_the_identity_with_equal_odds() -> None:
    model = build_model(dataclasses.replace(SMALL, init="zero_out", tied=False))
    tokens_BT = random_tokens(SMALL, 2, 7)
    assert not model(tokens_BT).any()
    x_BTD = model.embed(tokens_BT, 0)
    torch.testing.assert_close(model.blocks[0](x_BTD), x_BTD)
    assert 0.9 < float(model.embedding.weight.detach().std()) < 1.1
    assert 0.9 < float(model.blocks[0].mlp.up.weight.detach().std()) * SMALL.width**0.5 < 1.1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    one, same, other = (build_model(SMALL, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["embedding.weight"], other["embedding.weight"])


def test_recomputed_activations_give_the_same_gradients() -> None:
    config = dataclasses.replace(SMALL, dropout=0.2)
    tokens = random_tokens(config, 2, 16)
    gradients = []
    for recompute in (False, True):
        model = build_model(config)
        model.activation_checkpointing = recompute
        torch.manual_seed(3)
        model(tokens).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_dropout_acts_in_training_only() -> None:
    model = build_model(dataclasses.replace(SMALL, dropout=0.5))
    tokens = random_tokens(SMALL, 1, 16)
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_the_fast_rms_norm_equals_torchs_in_value_and_gradient() -> None:
    norm = RMSNorm(24, 1e-6)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(5, 7, 24).requires_grad_()
    grad = torch.randn(5, 7, 24)
    fast = torch.autograd.grad(norm(x), (x, norm.weight), grad)
    x64, gain64 = x.double(), norm.weight.double()
    slow = torch.autograd.grad(F.rms_norm(x64, (24,), gain64, 1e-6), (x, norm.weight), grad.double())
    torch.testing.assert_close(norm(x).double(), F.rms_norm(x64, (24,), gain64, 1e-6), rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_rotated_scores_depend_on_the_distance_alone() -> None:
    rotary = Rotary(np.arange(64.0), 8, 10_000.0)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    scores = [(rotary(q, start + 5) * rotary(k, start)).sum() for start in (0, 1, 50)]
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(scores[2], scores[0])


def test_rotation_equals_its_formula() -> None:
    x = torch.randn(2, 6, 3, 8)
    turned = Rotary(np.arange(10.0), 8, 100.0)(x, start=4)
    for t in range(6):
        for i in range(4):
            angle = torch.tensor((4 + t) * 100.0 ** (-2 * i / 8))
            a, b = x[:, t, :, 2 * i], x[:, t, :, 2 * i + 1]
            torch.testing.assert_close(turned[:, t, :, 2 * i], a * angle.cos() - b * angle.sin())
            torch.testing.assert_close(turned[:, t, :, 2 * i + 1], b * angle.cos() + a * angle.sin())


def test_reordering_to_halves_is_undone_by_its_inverse() -> None:
    rows = torch.randn(16, 5)
    assert torch.equal(from_halves(to_halves(rows, 8), 8), rows)
    assert to_halves(torch.arange(8), 8).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
