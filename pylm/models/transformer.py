"""The transformer on one residual stream: Llama's, GPT-2's, S0's and S4's models are settings of it.

pre:  x = x + attention(norm(x));  x = x + mlp(norm(x));  a norm before the head
post: x = norm(x + attention(x));  x = norm(x + mlp(x));  the same norm before the head
none: the same without norms
"""

from typing import Any

from torch import Tensor, nn

from pylm.models import fused_block
from pylm.models.attention import Attention
from pylm.models.cache import LayerCache
from pylm.models.config import ModelConfig
from pylm.models.decoder import Block, Decoder, attention_maker
from pylm.models.fused import Heads
from pylm.models.layers import MLP, PlainNorm, make_norm
from pylm.models.products import arithmetic_dtype

# Axes: B sequences, T positions, D model width.


class Transformer(Decoder):
    """Blocks one after another."""

    def __init__(self, config: ModelConfig) -> None:
        attention = attention_maker(config)
        blocks = [ResidualBlock(config, attention()) for _ in range(config.n_layers)]
        super().__init__(config, blocks, make_norm(config, config.width), config.width)


class ResidualBlock(Block):
    """Attention, then an MLP, each added to its input."""

    def __init__(self, config: ModelConfig, attention: Attention) -> None:
        super().__init__()
        self.post = config.norm == "post"
        self.attention_norm = make_norm(config, config.width)
        self.attention = attention
        self.mlp_norm = make_norm(config, config.width)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)
        self._layers = (attention.qkv, attention.out, self.mlp.up, self.mlp.down)
        has_bias = any(layer.bias is not None for layer in self._layers)
        self._is_plain = not self.post and not has_bias and self.mlp.kind in fused_block.ACTIVATIONS

    def forward(self, x_BTD: Tensor, cache: Any = None) -> Tensor:
        """(B, T, D) to (B, T, D): by the extension where that can."""
        norm = self.attention_norm
        if isinstance(norm, PlainNorm) and (heads := self.fused_heads(x_BTD, cache)) is not None:
            parts = fused_block.Parts(heads, norm.kind, norm.eps, self.mlp.kind)
            return fused_block.run(x_BTD, parts, self._matrices())
        if self.post:
            x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, cache)))
            x_BTD = self.mlp_norm(x_BTD + self.dropout(self.mlp(x_BTD)))
        else:
            x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), cache))
            x_BTD = x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))
        return x_BTD

    def fused_heads(self, x_BTD: Tensor, cache: Any) -> Heads | None:
        """What the extension has to do inside attention, None where it cannot do the block."""
        if not self._is_plain:
            return None
        return self.attention.fused_heads(x_BTD, cache) if x_BTD.dtype == arithmetic_dtype(x_BTD) else None

    def _matrices(self) -> tuple[Tensor, ...]:
        return tuple(layer.weight for layer in self._layers)

    def new_cache(self, max_tokens: int) -> LayerCache:
        """The attention's cache."""
        return self.attention.new_cache(max_tokens)
