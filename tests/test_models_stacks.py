"""S2's parallel stacks: batched layers equal a loop over layers, and the original's mask is caught."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.errors import ConfigError
from pylm.models import attention
from pylm.models.build import build_model
from pylm.models.presets import find_preset
from pylm.models.stacks import Stack, Stacks

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = dataclasses.replace(
    find_preset("stacks-577m").model,
    vocab_size=50,
    max_context=32,
    n_layers=4,
    width=32,
    n_heads=2,
    n_stacks=3,
    dropout=0.0,
)


def looped(stack: Stack, x_BTD: Tensor) -> Tensor:
    """A stack as its definition reads: layer after layer, head after head, no folded products."""
    n, width = stack.n_layers, x_BTD.shape[-1]
    heads, size = stack.attention.n_heads // n, stack.attention.head_size
    wide = stack.reduce.n_out
    q, k, v = (part.view(n, heads, size, width) for part in stack.attention.qkv.weight.chunk(3))
    bq, bk, bv = (part.view(n, heads, size) for part in stack.attention.qkv.bias.chunk(3))
    outputs = []
    for layer in range(n):
        mixed = []
        for h in range(heads):
            query, key, value = (
                x_BTD @ matrix[layer, h].T + bias[layer, h] for matrix, bias in ((q, bq), (k, bk), (v, bv))
            )
            scores = query @ key.transpose(1, 2) / size**0.5
            future = torch.ones_like(scores, dtype=torch.bool).triu(1)
            mixed.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ value)
        a = torch.cat(mixed, -1) @ stack.out.weight[layer].T + stack.out.bias.view(n, width)[layer]
        r = (x_BTD + a) @ stack.reduce.weight[layer].T + stack.reduce.bias.view(n, wide)[layer]
        gain, shift = stack.norm.weight.view(n, wide)[layer], stack.norm.bias.view(n, wide)[layer]
        normed = F.layer_norm(r, (wide,), gain, shift, stack.norm.eps)
        hidden = F.relu(normed @ stack.up.weight[layer].T + stack.up.bias.view(n, 4 * wide)[layer])
        outputs.append(r + hidden @ stack.down.weight[layer].T + stack.down.bias.view(n, wide)[layer])
    y_BTD = torch.cat(outputs, -1)
    return (
        F.relu(y_BTD @ stack.wide_up.weight.T + stack.wide_up.bias) @ stack.wide_down.weight.T
        + stack.wide_down.bias
    )


@pytest.mark.parametrize("length", [2, 20], ids=["few positions", "folded matrices"])
def test_batched_layers_equal_a_loop_over_layers(length: int) -> None:
    model = build_model(CONFIG)
    assert isinstance(model, Stacks)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokens = torch.randint(50, (2, length))
    x_BTD = model.embed(tokens, 0)
    for stack in model.blocks:
        x_BTD = looped(stack, x_BTD)
    logits = model.final_norm(x_BTD) @ model.head_weight.T + model.head_bias
    torch.testing.assert_close(model(tokens), logits, rtol=1e-4, atol=1e-4)


def test_the_original_mask_which_shows_the_future_is_caught(
    monkeypatch: pytest.MonkeyPatch, future_leak: Any
) -> None:
    def keeps_the_upper_triangle(q: Tensor, k: Tensor, v: Tensor, **_: object) -> Tensor:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    model = build_model(CONFIG)
    assert future_leak(model) == 0.0
    monkeypatch.setattr(attention.SelfAttention, "fused_heads", lambda *_: None)  # by torch, whose mask it is
    monkeypatch.setattr(
        attention, "F", type("F", (), {"scaled_dot_product_attention": keeps_the_upper_triangle})
    )
    assert future_leak(model) > 1e-3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n_layers", 5, "n_layers 5 does not divide model.width 32"),
        ("mlp", "swiglu", "no gated MLP"),
        ("norm", "none", "has 'pre' only"),
        ("tied", True, "has False only"),
    ],
)
def test_what_stacks_cannot_be_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **{field: value})


def test_recomputed_parts_give_the_same_gradients() -> None:
    model = build_model(dataclasses.replace(CONFIG, dropout=0.2))
    tokens = torch.randint(50, (2, 32), generator=torch.Generator().manual_seed(1))
    gradients = []
    for recompute in (False, True):
        model.activation_checkpointing = recompute
        model.zero_grad()
        torch.manual_seed(3)
        model(tokens).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
