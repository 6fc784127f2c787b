"""S0's compressed attention as a layer: short sequences densely, long ones by blocks, cached ones from slots."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.models.attention import Attention
from pylm.models.compressed_blocks import block_attention, dense_attention
from pylm.models.compressed_cache import CompressedCache
from pylm.models.compression import Compression
from pylm.models.config import ModelConfig
from pylm.models.rotary import Rotary

# Axes: B sequences, T positions, D model width, M chunks, S slots of a chunk, H heads, d features of a head, N = B x H.


class CompressedAttention(Attention):
    """Attention over compressed keys and values; its parameters are those of full attention.

    Dropout acts on its output, not on its weights.
    """

    def __init__(self, config: ModelConfig, rotary: Rotary | None, compression: Compression) -> None:
        super().__init__(config, rotary)
        self.compression = compression

    def mix(self, x_BTD: Tensor, cache: CompressedCache | None = None) -> Tensor:  # type: ignore[override]
        """(B, T, D) to (B, H, T, d); with a cache, x holds the positions after those the cache has seen."""
        start = 0 if cache is None else cache.length
        qk_BTHd, v_BTHd = self.project(x_BTD)
        q_BTHd, k_BTHd = qk_BTHd.to(v_BTHd.dtype).chunk(2, dim=2)
        if cache is not None and start > 0:
            return self._cached(q_BTHd, k_BTHd, v_BTHd, cache)
        if cache is not None:
            cache.fill(k_BTHd, v_BTHd)
        return self._uncached(q_BTHd, k_BTHd, v_BTHd).transpose(1, 2)

    def fused_heads(self, *_: object) -> None:
        """None: the extension has no compressed keys."""

    def _uncached(self, q_BTHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor) -> Tensor:
        shared, length = self.compression, q_BTHd.shape[1]
        if length <= 2 * shared.layout.boundary * shared.layout.chunk:  # nothing to compress yet
            turned = (shared.turn(q_BTHd, 0), shared.turn(k_BTHd, 0), v_BTHd)
            q_BHTd, k_BHTd, v_BHTd = (x.transpose(1, 2) for x in turned)
            return F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, is_causal=True).transpose(1, 2)
        attend = dense_attention if shared.layout.is_dense(length) else block_attention
        return attend(shared, q_BTHd, k_BTHd, v_BTHd)

    def _cached(self, q_BTHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor, cache: CompressedCache) -> Tensor:
        pieces_BHTd = []
        for piece in cache.within_chunks(q_BTHd.shape[1]):
            q_BHTd = self.compression.turn(q_BTHd[:, piece], cache.length).transpose(1, 2)
            cache.append(k_BTHd[:, piece], v_BTHd[:, piece])
            pieces_BHTd.append(cache.attend(q_BHTd))
        return torch.cat(pieces_BHTd, dim=2)

    def new_cache(self, max_tokens: int) -> CompressedCache:  # type: ignore[override]
        """An empty cache for up to `max_tokens` positions."""
        return CompressedCache(self.compression, max_tokens)
