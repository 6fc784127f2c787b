"""S0's compressed attention, its definition: near and oldest keys stay whole, the rest of the past becomes slots.

Positions come in chunks of c = proj_ratio. A query in chunk m sees whole, masked causally, the newest b chunks
(m - b + 1 to m) and the oldest b (b = num_keep_boundary_chunk). Every other past chunk becomes c / r slots, each a
fixed combination of its keys and the same one of its values (the mean of r neighbours by default); r is the i-th
divisor of c from proj_ratio_min on for a chunk b + i back, and c for all that are further. One softmax goes over
everything; a slot's score gains ln r, since it stands for r keys. Keys are pooled unrotated and turned at the slot's
mean position.

At T positions that is T / c + O(1) keys a query. The source names the numbers and does not define the computation: this
reading is ours (docs/models.md).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Up to this many positions one masked product is faster than blocks.
DENSE_TOKENS = 256
# Scores of one block, all heads. 4 MB stay in a CPU's caches (8,192 positions, 16 heads of 64, one thread: 1.6 s with
# 2^20 or 2^21 numbers, 2.3 with 2^18); a GPU wants fewer, larger steps.
BLOCK_SCORES = {"cpu": 2**20, "cuda": 2**25}
MAX_BLOCK_CHUNKS = 64


@dataclass(frozen=True)
class Layout:
    """Which keys a query sees; `ratios` ascend and end with the chunk size."""

    chunk: int
    boundary: int
    ratios: tuple[int, ...]

    @staticmethod
    def of(proj_ratio: int, proj_ratio_min: int, boundary: int) -> "Layout":
        """The layout of S0's three numbers."""
        ratios = tuple(r for r in range(proj_ratio_min, proj_ratio + 1) if proj_ratio % r == 0)
        return Layout(proj_ratio, boundary, ratios)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Slots of a chunk, by ratio; the last is 1."""
        return tuple(self.chunk // ratio for ratio in self.ratios)

    @property
    def far(self) -> int:
        """A chunk this many chunks back or more is one slot."""
        return self.boundary + len(self.ratios) - 1

    @property
    def settled(self) -> int:
        """The first chunk that sees every kind of key, none of them twice."""
        return self.boundary + self.far

    def n_far(self, last: int) -> int:
        """Far keys of the chunks before `last`: the oldest chunks, and a slot of every chunk far enough back."""
        return self.boundary * self.chunk + max(0, last - self.far - self.boundary)

    @property
    def n_near(self) -> int:
        """Keys a settled chunk sees on its own: the newest chunks and the finer slots."""
        return self.boundary * self.chunk + sum(self.sizes[:-1])

    def is_dense(self, length: int) -> bool:
        """Whether so many positions are one masked product."""
        return length <= max(DENSE_TOKENS, self.settled * self.chunk)

    def blocks(self, length: int, n_heads: int, device: str) -> list[tuple[int, int]]:
        """Ranges of chunks, from `settled` on, whose scores fit the budget; `n_heads` counts those of all sequences.

        The budget is at most 16 scores a key, a quarter of the memory of keys of 64 features: short sequences need not
        pay for large blocks.
        """
        budget = min(BLOCK_SCORES.get(device, BLOCK_SCORES["cuda"]), 16 * length * n_heads)
        n_chunks = -(-length // self.chunk)
        ranges = []
        first = self.settled
        while first < n_chunks:
            scores = n_heads * self.chunk * (self.n_far(first + 1) + self.n_near)
            last = min(n_chunks, first + max(1, min(budget // scores, MAX_BLOCK_CHUNKS)))
            ranges.append((first, last))
            first = last
        return ranges

    def n_scores(self, length: int, n_heads: int, device: str = "cpu") -> int:
        """Scores that are computed, masked ones included, for `length` positions of one head.

        The forward pass multiplies each by a key's and a value's features; the backward pass does that again, and twice
        as much. `n_heads` counts those of all sequences: it decides the size of blocks.
        """
        if length <= 2 * self.boundary * self.chunk:
            return length * length
        if self.is_dense(length):
            return length * (length + sum(self.sizes) * (length // self.chunk))
        blocks = self.blocks(length, n_heads, device)
        tail = ((last - first) * self.chunk * (self.n_far(last) + self.n_near) for first, last in blocks)
        head = self.settled * self.chunk
        return head * (head + sum(self.sizes) * self.settled) + sum(tail)

    def n_pooled(self, length: int, n_heads: int, device: str = "cpu") -> int:
        """Slots of keys that are computed for one head, and as many of values: each a product over one chunk.

        Blocks compute the finer slots that they need, not all at once, so some twice.
        """
        n_chunks, n_slots = length // self.chunk, sum(self.sizes)
        if length <= 2 * self.boundary * self.chunk:
            return 0
        if self.is_dense(length):
            return n_slots * n_chunks
        blocks = self.blocks(length, n_heads, device)
        windows = (min(last, n_chunks) - first + self.far - 1 for first, last in blocks)
        return n_slots * (self.settled + sum(windows)) + n_chunks - self.boundary

    def n_cached(self, n_tokens: int) -> int:
        """Keys that a cache for `n_tokens` holds: those that queries see, the chunk that fills, slots to come."""
        return self.n_near + self.n_far(n_tokens // self.chunk + 1) + self.chunk + self.far * sum(self.sizes)

    def slot_positions(self, n_chunks: int) -> NDArray[np.float64]:
        """Mean position of every slot, chunk by chunk, ratio by ratio: (n_chunks x S)."""
        in_chunk = [ratio * np.arange(self.chunk // ratio) + (ratio - 1) / 2 for ratio in self.ratios]
        return (
            (self.chunk * np.arange(n_chunks)[:, None] + np.concatenate(in_chunk))
            .reshape(-1)
            .astype(np.float64)
        )

    def n_keys(self, position: int) -> int:
        """Keys and slots that the query at `position` sees."""
        chunk, oldest = position // self.chunk, self.boundary * self.chunk
        newest = position + 1 - max(oldest, (chunk - self.boundary + 1) * self.chunk)
        finer = sum(
            size for i, size in enumerate(self.sizes[:-1]) if chunk - self.boundary - i >= self.boundary
        )
        return min(position + 1, oldest) + max(0, newest) + finer + self.n_far(chunk + 1) - oldest


def projection(layout: Layout, kind: str) -> NDArray[np.float32]:
    """The fixed matrix from a chunk's positions to its slots, (S, c).

    mean averages r neighbours. gaussian and orthogonal mix the whole chunk, with rows as long as the mean's,
    1 / sqrt(r); they are drawn from a frozen stream of numbers, since no checkpoint holds them.
    """
    rows = []
    for ratio, size in zip(layout.ratios, layout.sizes, strict=True):
        if kind == "mean":
            rows.append(np.repeat(np.eye(size), ratio, axis=1) / ratio)
            continue
        drawn = np.random.RandomState(ratio).standard_normal((size, layout.chunk))
        if kind == "orthogonal":
            q, upper = np.linalg.qr(drawn.T)
            rows.append((q * np.sign(np.diag(upper))).T / math.sqrt(ratio))
        else:
            rows.append(drawn / math.sqrt(layout.chunk * ratio))
    return np.concatenate(rows).astype(np.float32)
