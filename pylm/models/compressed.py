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

# Up to here one masked product is faster than blocks.
DENSE_TOKENS = 256


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
        raw_k_BTHd = qk_BTHd[:, :, self.n_heads :]
        q_BTHd, k_BTHd = self.rotate(qk_BTHd, start).chunk(2, dim=2)
        if cache is None or start == 0:
            if cache is not None:
                cache.fill(raw_k_BTHd, k_BTHd, v_BTHd)
            mixed_BHTd: Tensor = self._uncached(q_BTHd, raw_k_BTHd, k_BTHd, v_BTHd)
            return mixed_BHTd
        pieces = []
        for piece in cache.within_chunks(x_BTD.shape[1]):
            cache.append(raw_k_BTHd[:, piece], k_BTHd[:, piece], v_BTHd[:, piece])
            pieces.append(cache.attend(q_BTHd[:, piece].transpose(1, 2)))
        return torch.cat(pieces, dim=2)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # blocks are a loop of data-dependent length
    def _uncached(self, q_BTHd: Tensor, raw_k_BTHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor) -> Tensor:
        layout = self.compression.layout
        batch, length = q_BTHd.shape[:2]
        q_BHTd, k_BHTd, v_BHTd = (x.transpose(1, 2) for x in (q_BTHd, k_BTHd, v_BTHd))
        if length <= 2 * layout.boundary * layout.chunk:  # nothing to compress yet
            return F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, is_causal=True)
        slots = (self.compression.pool_keys(raw_k_BTHd), self.compression.pool(v_BTHd))
        k_slots_NMSd, v_slots_NMSd = (x.permute(0, 3, 1, 2, 4).flatten(0, 1) for x in slots)
        q_NTd, k_NTd, v_NTd = (x.flatten(0, 1) for x in (q_BHTd, k_BHTd, v_BHTd))
        short = length <= max(DENSE_TOKENS, layout.settled * layout.chunk)
        y_NTd = (dense_attention if short else block_attention)(
            layout, q_NTd, k_NTd, v_NTd, k_slots_NMSd, v_slots_NMSd
        )
        return y_NTd.view(batch, -1, *y_NTd.shape[1:])

    def new_cache(self, max_tokens: int) -> CompressedCache:  # type: ignore[override]
        """An empty cache for up to `max_tokens` positions."""
        return CompressedCache(self.compression, max_tokens)
