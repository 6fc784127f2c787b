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
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pylm.models.config import ModelConfig
from pylm.models.rotary import Rotary

# Axes: B sequences, T positions, M chunks, c positions of a chunk, S slots of a chunk (of all ratios), H heads,
# d features of a head.


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


class Compression(nn.Module):
    """What all compressed layers of a model share: layout, fixed matrix, the slots' rotation. Nothing is trained."""

    matrix_Sc: Tensor  # noqa: N815

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layout = Layout.of(config.proj_ratio, config.proj_ratio_min, config.num_keep_boundary_chunk)
        self.register_buffer(
            "matrix_Sc", torch.as_tensor(projection(self.layout, config.projection)), persistent=False
        )
        self.rotary = None
        if config.positions == "rope":
            positions = self.layout.slot_positions(-(-config.max_context // self.layout.chunk))
            self.rotary = Rotary(positions, config.head_size, config.rope_base)

    def pool(self, x_BTHd: Tensor) -> Tensor:
        """Slots (B, M, S, H, d) of the complete chunks among whole, unrotated keys or values (B, T, H, d)."""
        n_chunks = x_BTHd.shape[1] // self.layout.chunk
        size = x_BTHd.shape[2] * x_BTHd.shape[3]
        whole_BTHd = x_BTHd[:, : n_chunks * self.layout.chunk]
        x_BMcD = whole_BTHd.reshape(x_BTHd.shape[0], n_chunks, self.layout.chunk, size)
        slots_BMSD = torch.matmul(self.matrix_Sc.to(x_BTHd.dtype), x_BMcD)
        return slots_BMSD.view(*slots_BMSD.shape[:3], *x_BTHd.shape[2:])

    def pool_keys(self, keys_BTHd: Tensor, first_chunk: int = 0) -> Tensor:
        """The same for keys, turned at the slots' positions; the keys' first chunk is `first_chunk`."""
        slots_BMSHd = self.pool(keys_BTHd)
        if self.rotary is None:
            return slots_BMSHd
        turned_BTHd: Tensor = self.rotary(slots_BMSHd.flatten(1, 2), first_chunk * slots_BMSHd.shape[2])
        return turned_BTHd.view(slots_BMSHd.shape)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # a cached tensor may be wanted by a backward pass later
def dense_bias(layout: Layout, length: int, device: torch.device) -> Tensor:
    """What is added to the scores of `length` queries over all whole keys and then all slots: 0, ln r, or -inf.

    (T, T + M S), float32, M being the complete chunks.
    """
    t = torch.arange(length, device=device)
    chunk = t // layout.chunk
    back = chunk[:, None] - chunk[None, :]
    whole = (t[:, None] >= t[None, :]) & ((back < layout.boundary) | (chunk[None, :] < layout.boundary))
    n_chunks = length // layout.chunk
    source = torch.arange(n_chunks, device=device)
    distance = chunk[:, None] - source[None, :]
    parts = [torch.zeros(length, length, device=device).masked_fill(~whole, -math.inf)]
    slots = []
    for i, (ratio, size) in enumerate(zip(layout.ratios, layout.sizes, strict=True)):
        back_by = layout.boundary + i
        seen = distance >= back_by if ratio == layout.chunk else distance == back_by
        seen = seen & (source[None, :] >= layout.boundary)
        bias = torch.full(seen.shape, math.log(ratio), device=device).masked_fill(~seen, -math.inf)
        slots.append(bias[:, :, None].expand(-1, -1, size))
    parts.append(torch.cat(slots, dim=2).flatten(1))
    return torch.cat(parts, dim=1)
