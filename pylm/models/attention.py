"""Causal attention with grouped queries, with or without a cache; torch's fused kernel where that is fast."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pylm.models import explicit, fused
from pylm.models.cache import FullCache, causal_mask
from pylm.models.config import ModelConfig
from pylm.models.documents import Documents
from pylm.models.layers import Linear, PlainNorm, make_norm
from pylm.models.rotary import Rotary

# Axes: B sequences, T positions, D model width, H heads of queries, K heads of keys, d features of a head.


def fastest_kernels(device: torch.device) -> AbstractContextManager[None]:
    """Inside, attention of one shape again and again, as training has it, takes the first of torch's kernels that can.

    cuDNN's is the fastest on recent GPUs (docs/performance.md), but plans anew for every shape: not for generation.
    """
    if device.type != "cuda":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = ("CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
    return sdpa_kernel([getattr(SDPBackend, name) for name in order], set_priority=True)


class SelfAttention(nn.Module):
    """Queries, keys, values and the weighted sum, up to the output projection.

    `rotary` is shared by all layers of a model, None for positions of another kind. `n_copies` of the config's heads
    work side by side on the same input (S2).
    """

    def __init__(self, config: ModelConfig, rotary: Rotary | None, n_copies: int = 1) -> None:
        super().__init__()
        self.n_heads, self.kv_heads = n_copies * config.n_heads, n_copies * config.kv_heads
        self.head_size = config.head_size
        self.dropout = config.dropout
        self.rotary = rotary
        q_width, kv_width = self.n_heads * self.head_size, self.kv_heads * self.head_size
        self.qkv = Linear(config.width, (q_width, kv_width, kv_width), config.bias and config.qkv_bias, "qkv")
        self.q_norm, self.k_norm = (
            (make_norm(config, self.head_size) if config.qk_norm else nn.Identity()) for _ in range(2)
        )

    def values(self, x_BTD: Tensor, cache: FullCache | Documents | None = None) -> Tensor:
        """The mixed values of all heads side by side, (B, T, D) to (B, T, H x d): by the extension where that can."""
        if (heads := self.fused_heads(x_BTD, cache)) is not None:
            return fused.mix(self.qkv(x_BTD), heads)
        return self.mix(x_BTD, cache).transpose(1, 2).flatten(2)

    def fused_heads(self, x_BTD: Tensor, cache: FullCache | Documents | None) -> fused.Heads | None:
        """What the extension has to do, None where it cannot: gains of norms, documents, dropout."""
        norm = self.q_norm
        plain = isinstance(norm, PlainNorm | nn.Identity)
        dropout = self.training and self.dropout
        if cache is not None or not plain or dropout or not fused.can_mix(x_BTD, self.head_size):
            return None
        kind, eps = (norm.kind, norm.eps) if isinstance(norm, PlainNorm) else ("none", 0.0)
        angles = None if self.rotary is None else self.rotary.angles(x_BTD.shape[1])
        return fused.Heads(self.n_heads, self.kv_heads, kind, eps, angles)

    def mix(self, x_BTD: Tensor, cache: FullCache | Documents | None = None) -> Tensor:
        """(B, T, D) to (B, H, T, d); with a cache, x holds the positions after those the cache has seen. By torch."""
        qk_BTHd, v_BTKd = self.project(x_BTD)
        if isinstance(cache, Documents):
            qk_BTHd = self.rotate(qk_BTHd, cache.positions_BT)
        else:
            qk_BTHd = self.rotate(qk_BTHd, 0 if cache is None else cache.length)
        q_BTHd, k_BTKd = torch.split(qk_BTHd, [self.n_heads, self.kv_heads], dim=2)
        return self.attend(q_BTHd.transpose(1, 2), k_BTKd.transpose(1, 2), v_BTKd.transpose(1, 2), cache)

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, normalised, side by side (B, T, H + K, d); and values (B, T, K, d)."""
        qkv_BTHd = self.qkv(x_BTD).view(*x_BTD.shape[:2], -1, self.head_size)
        qk_BTHd, v_BTKd = qkv_BTHd.split((self.n_heads + self.kv_heads, self.kv_heads), dim=2)
        if isinstance(self.q_norm, PlainNorm):  # without gains the two are one
            qk_BTHd = self.q_norm(qk_BTHd)
        elif not isinstance(self.q_norm, nn.Identity):
            q_BTHd, k_BTKd = qk_BTHd.split((self.n_heads, self.kv_heads), dim=2)
            qk_BTHd = torch.cat((self.q_norm(q_BTHd), self.k_norm(k_BTKd)), dim=2)
        return qk_BTHd, v_BTKd

    def rotate(self, qk_BTHd: Tensor, start: int | Tensor) -> Tensor:
        """Turn heads whose first position is `start` (or all of them are, (B, T)), where positions are rotary."""
        if self.rotary is None:
            return qk_BTHd
        turned_BTHd: Tensor = self.rotary(qk_BTHd, start)
        return turned_BTHd

    def attend(
        self, q_BHTd: Tensor, k_BKTd: Tensor, v_BKTd: Tensor, cache: FullCache | Documents | None
    ) -> Tensor:
        """Softmax(q k / sqrt(d)) v over each query's own and earlier positions."""
        n_queries = q_BHTd.shape[2]
        if isinstance(cache, FullCache):
            k_BKTd, v_BKTd = cache.append(k_BKTd, v_BKTd)
        n_keys = k_BKTd.shape[2]
        mask = None if n_queries in (1, n_keys) else causal_mask(n_queries, n_keys, q_BHTd.device)
        if isinstance(cache, Documents):
            mask = cache.mask_B1TT
        is_causal = n_queries == n_keys and mask is None
        dropout = self.dropout if self.training else 0.0
        if is_causal and not dropout and explicit.is_faster(q_BHTd, k_BKTd):
            return explicit.causal_attention(q_BHTd, k_BKTd, v_BKTd)
        return F.scaled_dot_product_attention(
            q_BHTd,
            k_BKTd,
            v_BKTd,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=is_causal,
            enable_gqa=self.kv_heads != self.n_heads,
        )

    def new_cache(self, max_tokens: int) -> FullCache:
        """An empty cache for up to `max_tokens` positions."""
        return FullCache(max_tokens)


class Attention(SelfAttention):
    """Self-attention with its output projection."""

    def __init__(self, config: ModelConfig, rotary: Rotary | None) -> None:
        super().__init__(config, rotary)
        self.out = Linear(config.width, config.width, config.bias, "attention_out")

    def forward(self, x_BTD: Tensor, cache: FullCache | Documents | None = None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        y_BTD: Tensor = self.out(self.values(x_BTD, cache))
        return y_BTD
