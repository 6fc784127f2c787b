"""S2's parallel stacks: the layers of a stack all see the same x and run as one batched product, not one by one.

x0 = LN(embedding + sinusoid). Layer n of a stack: a = attention(x) at full width; r = W_n (x + a) + b_n, down to d
features; y_n = r + FFN(LN(r)). The y_n side by side go through a wide FFN to the next stack. No residual goes around a
stack. d = width / n_layers, in the last stack `expansion` times that, and a last norm stands before the head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pylm.models.attention import SelfAttention
from pylm.models.cache import FullCache
from pylm.models.config import ModelConfig
from pylm.models.decoder import Block, Decoder, make_rotary
from pylm.models.documents import Documents
from pylm.models.layers import ACTIVATIONS, BatchedLayerNorm, BatchedLinear, Linear, make_norm
from pylm.models.rotary import Rotary

# Axes: B sequences, T positions, M = B x T, D model width, N layers of a stack, H heads of all layers, d features.


class Stacks(Decoder):
    """Stacks one after another."""

    def __init__(self, config: ModelConfig) -> None:
        rotary = make_rotary(config)
        blocks = [Stack(config, rotary, last=i == config.n_stacks - 1) for i in range(config.n_stacks)]
        final_width = config.expansion * config.width
        super().__init__(config, blocks, make_norm(config, final_width), final_width)
        self.embedding_norm = make_norm(config, config.width)

    def enter(self, x_BTD: Tensor, start: int | Tensor) -> Tensor:
        """The normalised sum of token and position vectors."""
        x_BTD = self.embedding_norm(super().enter(x_BTD, start))
        return x_BTD


class Stack(Block):
    """N layers side by side, then one FFN over all of them."""

    def __init__(self, config: ModelConfig, rotary: Rotary | None, last: bool) -> None:
        super().__init__()
        n, width = config.n_layers, config.width
        wide = width * (config.expansion if last else 1)
        size = wide // n
        self.n_layers = n
        self.attention = SelfAttention(config, rotary, n_copies=n)
        self.out = BatchedLinear(n, width, width, config.bias, "attention_out")
        self.reduce = BatchedLinear(n, width, size, config.bias)
        self.norm = BatchedLayerNorm(n, size, config.norm_eps)
        self.up = BatchedLinear(n, size, 4 * size, config.bias)
        self.down = BatchedLinear(n, 4 * size, size, config.bias)
        self.wide_up = Linear(wide, (16 if last else 4) * width, config.bias)
        self.wide_down = Linear((16 if last else 4) * width, wide, config.bias)
        self.activation = ACTIVATIONS[config.mlp]
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BTD: Tensor, cache: FullCache | Documents | None = None, recompute: bool = False
    ) -> Tensor:
        """(B, T, D) to (B, T, D), `expansion` times as wide from the last stack.

        With `recompute` the layers and the FFN are recomputed one after the other, so that they are not held together.
        """
        if not recompute:
            return self.wide(self.side_by_side(x_BTD, cache))
        y_BTD = checkpoint(self.side_by_side, x_BTD, cache, use_reentrant=False)
        out_BTD: Tensor = checkpoint(self.wide, y_BTD, use_reentrant=False)
        return out_BTD

    def recomputed(self, x_BTD: Tensor, documents: Documents | None) -> Tensor:
        """By `forward`, a call of the module: what gathers the parts of a weight hangs there."""
        y_BTD: Tensor = self(x_BTD, documents, recompute=True)
        return y_BTD

    def compile(self, *args: Any, **options: Any) -> None:
        """In two parts, as they are recomputed. A copy of the module would go on with this one's."""
        self.side_by_side = torch.compile(self.side_by_side, *args, **options)  # type: ignore[method-assign]
        self.wide = torch.compile(self.wide, *args, **options)  # type: ignore[method-assign]

    def side_by_side(self, x_BTD: Tensor, cache: FullCache | Documents | None = None) -> Tensor:
        """What the layers make of x, one after another in the features."""
        batch, length, _ = x_BTD.shape
        mixed_BTE = self.attention.values(x_BTD, cache)
        mixed_NMD = mixed_BTE.view(batch * length, self.n_layers, -1).transpose(0, 1)
        r_NMd = self._reduced(x_BTD.flatten(0, 1), mixed_NMD)
        y_NMd = r_NMd + self.dropout(self.down(self.activation(self.up(self.norm(r_NMd)))))
        y_BTD: Tensor = y_NMd.transpose(0, 1).reshape(batch, length, -1)
        return y_BTD

    def wide(self, y_BTD: Tensor) -> Tensor:
        """The FFN over all layers."""
        out_BTD: Tensor = self.dropout(self.wide_down(self.activation(self.wide_up(y_BTD))))
        return out_BTD

    def _reduced(self, x_MD: Tensor, mixed_NMD: Tensor) -> Tensor:
        """W_n (x + W_o mixed + b_o) + b_n, for all n at once.

        For more positions than d it multiplies W_n W_o first: then no product of N x M x D x D and no tensor of
        N x M x D but the mixed values is left (docs/models.md has the times).
        """
        if x_MD.shape[0] <= self.reduce.n_out:
            summed_NMd: Tensor = self.reduce(x_MD + self.out(mixed_NMD))
            return summed_NMd
        both_NdD = torch.bmm(self.reduce.weight, self.out.weight)
        from_mixed_NMd = torch.bmm(mixed_NMD, both_NdD.transpose(1, 2))
        from_x_NMd = torch.matmul(x_MD, self.reduce.weight.transpose(1, 2))
        r_NMd = from_mixed_NMd + from_x_NMd
        if self.reduce.bias is not None and self.out.bias is not None:
            shift_N1d = self.reduce(self.out.bias.view(self.n_layers, 1, -1))
            r_NMd = r_NMd + shift_N1d
        return r_NMd

    def new_cache(self, max_tokens: int) -> FullCache:
        """One cache for the heads of all layers."""
        return FullCache(max_tokens)
