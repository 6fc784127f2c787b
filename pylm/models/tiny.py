"""S1's post-norm model: u = LN(x);  z = LN(u + attention(u));  x = z + mlp(z)."""

from typing import Any

from torch import Tensor, nn

from pylm.models.attention import Attention
from pylm.models.cache import LayerCache
from pylm.models.config import ModelConfig
from pylm.models.decoder import Block, Decoder, attention_maker
from pylm.models.layers import MLP, make_norm

# Axes: B sequences, T positions, D model width.


class Tiny(Decoder):
    """Blocks one after another, a norm before the head."""

    def __init__(self, config: ModelConfig) -> None:
        attention = attention_maker(config)
        blocks = [TinyBlock(config, attention()) for _ in range(config.n_layers)]
        super().__init__(config, blocks, make_norm(config, config.width), config.width)


class TinyBlock(Block):
    """The norms stand on the residual stream itself: nothing passes a block unnormalised."""

    def __init__(self, config: ModelConfig, attention: Attention) -> None:
        super().__init__()
        self.input_norm = make_norm(config, config.width)
        self.attention = attention
        self.attention_norm = make_norm(config, config.width)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, cache: Any = None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        u_BTD = self.input_norm(x_BTD)
        z_BTD = self.attention_norm(u_BTD + self.dropout(self.attention(u_BTD, cache)))
        x_BTD = z_BTD + self.dropout(self.mlp(z_BTD))
        return x_BTD

    def new_cache(self, max_tokens: int) -> LayerCache:
        """The attention's cache."""
        return self.attention.new_cache(max_tokens)
