"""The cache of compressed attention: it shrinks, since a chunk lives as slots once it is no longer among the newest.

One buffer of keys and one of values hold, side by side, what the next query sees:

    oldest chunks | newest chunks, by chunk modulo b | finer slots of the chunks before | one slot a chunk, ever growing
"""

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.models.cache import LayerCache
from pylm.models.compression import Compression
from pylm.models.layout import Layout

# Axes: B sequences, T positions, K keys and slots, S slots of a chunk, H heads, d features of a head.


class CompressedCache(LayerCache):
    """Memory for 2 b c whole positions and a slot for each chunk between, instead of every position."""

    def __init__(self, compression: Compression, max_tokens: int) -> None:
        self.compression = compression
        self.layout = compression.layout
        self.max_tokens = max_tokens
        self.length = 0
        self._keys: _Side | None = None
        self._values: _Side | None = None

    def within_chunks(self, n_tokens: int) -> Iterator[slice]:
        """Cut the next `n_tokens` at chunk ends: all queries of one chunk see the same slots."""
        start = self.length
        done = 0
        while done < n_tokens:
            size = min(n_tokens - done, self.layout.chunk - (start + done) % self.layout.chunk)
            yield slice(done, done + size)
            done += size

    def append(self, k_BTHd: Tensor, v_BTHd: Tensor) -> None:
        """Add unrotated keys and values of positions of one chunk."""
        keys, values = self._sides(k_BTHd)
        chunk, offset = divmod(self.length, self.layout.chunk)
        if offset == 0 and chunk > 0:
            keys.close(chunk - 1, self.compression.pool_keys(keys.current_BcHd, chunk - 1))
            values.close(chunk - 1, self.compression.pool(values.current_BcHd))
        keys.write(chunk, offset, self.compression.turn(k_BTHd, self.length), k_BTHd)
        values.write(chunk, offset, v_BTHd, v_BTHd)
        self.length += k_BTHd.shape[1]

    def fill(self, k_BTHd: Tensor, v_BTHd: Tensor) -> None:
        """Take in a whole prompt; the cache must be empty."""
        keys, values = self._sides(k_BTHd)
        last = (k_BTHd.shape[1] - 1) // self.layout.chunk
        done = last * self.layout.chunk  # chunks before the last one are closed
        keys.fill(
            last, self.compression.turn(k_BTHd, 0), k_BTHd, self.compression.pool_keys(k_BTHd[:, :done])
        )
        values.fill(last, v_BTHd, v_BTHd, self.compression.pool(v_BTHd[:, :done]))
        self.length = k_BTHd.shape[1]

    def attend(self, q_BHTd: Tensor) -> Tensor:
        """Attention of the last appended positions' queries, (B, H, T, d)."""
        assert self._keys is not None
        assert self._values is not None
        bias = _bias(self.layout, self.length - q_BHTd.shape[2], q_BHTd.shape[2], q_BHTd.device).to(
            q_BHTd.dtype
        )
        n_keys = bias.shape[1]
        keys, values = self._keys.buffer_BHKd[:, :, :n_keys], self._values.buffer_BHKd[:, :, :n_keys]
        return F.scaled_dot_product_attention(q_BHTd, keys, values, attn_mask=bias)

    def reset(self) -> None:
        """Forget everything; the buffers stay."""
        self.length = 0

    def size_bytes(self) -> int:
        """Memory of both sides."""
        return sum(side.size_bytes() for side in (self._keys, self._values) if side is not None)

    def _sides(self, like_BTHd: Tensor) -> tuple["_Side", "_Side"]:
        if self._keys is None or self._values is None:
            self._keys, self._values = (_Side(self.layout, like_BTHd, self.max_tokens) for _ in range(2))
        return self._keys, self._values


class _Side:
    """Keys, or values: the buffer that queries see, the current chunk unrotated, and recent chunks' slots."""

    def __init__(self, layout: Layout, like_BTHd: Tensor, max_tokens: int) -> None:
        batch, _, heads, size = like_BTHd.shape
        self.layout = layout
        self.max_keys = _n_keys(layout, max_tokens // layout.chunk)
        self.buffer_BHKd = like_BTHd.new_zeros(
            batch, heads, min(self.max_keys, _n_keys(layout, 2 * layout.settled)), size
        )
        self.current_BcHd = like_BTHd.new_empty(batch, layout.chunk, heads, size)
        self.slots_BFSHd = like_BTHd.new_empty(batch, layout.far, sum(layout.sizes), heads, size)

    def write(self, chunk: int, offset: int, x_BTHd: Tensor, raw_BTHd: Tensor) -> None:
        """Positions `offset`.. of `chunk`."""
        end = offset + x_BTHd.shape[1]
        start = _newest(self.layout, chunk) + offset
        self.buffer_BHKd[:, :, start : start + x_BTHd.shape[1]] = x_BTHd.transpose(1, 2)
        self.current_BcHd[:, offset:end] = raw_BTHd

    def close(self, chunk: int, slots_B1SHd: Tensor) -> None:
        """Keep the slots of a complete chunk, and show the next chunk its finer and far slots."""
        self.slots_BFSHd[:, chunk % self.layout.far] = slots_B1SHd[:, 0]
        self._show_slots(chunk + 1)
        gone = chunk + 1 - self.layout.far
        if gone >= self.layout.boundary:
            row = _n_keys(self.layout, chunk + 1) - 1
            self._grow(row + 1)
            self.buffer_BHKd[:, :, row] = self.slots_BFSHd[:, gone % self.layout.far, -1]

    def fill(self, last: int, x_BTHd: Tensor, raw_BTHd: Tensor, slots_BMSHd: Tensor) -> None:
        """A whole prompt whose last chunk is `last`; slots of the chunks before it."""
        layout, chunk = self.layout, self.layout.chunk
        for j in {
            *range(min(layout.boundary, last + 1)),
            *range(max(0, last - layout.boundary + 1), last + 1),
        }:
            part_BHTd = x_BTHd[:, j * chunk : (j + 1) * chunk].transpose(1, 2)
            start = _newest(layout, j)
            self.buffer_BHKd[:, :, start : start + part_BHTd.shape[2]] = part_BHTd
        self.current_BcHd[:, : x_BTHd.shape[1] - last * chunk] = raw_BTHd[:, last * chunk :]
        for j in range(max(0, last - layout.far), last):
            self.slots_BFSHd[:, j % layout.far] = slots_BMSHd[:, j]
        self._show_slots(last)
        far_BMHd = slots_BMSHd[:, layout.boundary : max(layout.boundary, last - layout.far + 1), -1]
        n_keys = _n_keys(layout, last)
        self._grow(n_keys)
        self.buffer_BHKd[:, :, n_keys - far_BMHd.shape[1] : n_keys] = far_BMHd.transpose(1, 2)

    def size_bytes(self) -> int:
        """Memory held."""
        return sum(
            t.numel() * t.element_size() for t in (self.buffer_BHKd, self.current_BcHd, self.slots_BFSHd)
        )

    def _show_slots(self, chunk: int) -> None:
        """Put the finer slots that queries of `chunk` see into their places."""
        layout = self.layout
        place, column = 2 * layout.boundary * layout.chunk, 0
        for i, size in enumerate(layout.sizes[:-1]):
            source = chunk - layout.boundary - i
            if source >= layout.boundary:
                slots_BSHd = self.slots_BFSHd[:, source % layout.far, column : column + size]
                self.buffer_BHKd[:, :, place : place + size] = slots_BSHd.transpose(1, 2)
            place, column = place + size, column + size

    def _grow(self, n_keys: int) -> None:
        held = self.buffer_BHKd.shape[2]
        if n_keys > held:
            more = min(self.max_keys, 2 * n_keys) - held
            self.buffer_BHKd = F.pad(self.buffer_BHKd, (0, 0, 0, more))


def _n_keys(layout: Layout, chunk: int) -> int:
    """Buffer rows that queries of `chunk` look at, those with nothing in them yet included."""
    return layout.n_near + layout.n_far(chunk + 1)


def _newest(layout: Layout, chunk: int) -> int:
    """Where a chunk's whole positions stand: the oldest for ever, others in a ring."""
    place = chunk if chunk < layout.boundary else layout.boundary + chunk % layout.boundary
    return place * layout.chunk


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # the same tensor serves other modes later
def _bias(layout: Layout, start: int, n_queries: int, device: torch.device) -> Tensor:
    """What is added to the scores of queries start.. (of one chunk) over the buffer's rows: 0, ln r, or -inf."""
    chunk = start // layout.chunk
    bias_QK = torch.full((n_queries, _n_keys(layout, chunk)), -math.inf)
    seen = {*range(min(layout.boundary, chunk + 1)), *range(max(0, chunk - layout.boundary + 1), chunk + 1)}
    for j in seen:
        bias_QK[:, _newest(layout, j) : _newest(layout, j) + layout.chunk] = 0
    own = _newest(layout, chunk) + start % layout.chunk
    for query in range(n_queries):
        bias_QK[query, own + query + 1 : _newest(layout, chunk) + layout.chunk] = -math.inf
    place = 2 * layout.boundary * layout.chunk
    for i, (ratio, size) in enumerate(zip(layout.ratios[:-1], layout.sizes, strict=False)):
        if chunk - layout.boundary - i >= layout.boundary:
            bias_QK[:, place : place + size] = math.log(ratio)
        place += size
    bias_QK[:, place:] = math.log(layout.chunk)
    return bias_QK.to(device)
