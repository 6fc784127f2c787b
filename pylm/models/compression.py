"""What the compressed layers of a model share, as tensors: the fixed matrix, the slots' rotation, the dense mask."""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from pylm.models.config import ModelConfig
from pylm.models.layout import Layout, projection
from pylm.models.rotary import Rotary

# Axes: B sequences, T positions, M chunks, c positions of a chunk, S slots of a chunk (of all ratios), H heads,
# d features of a head.


class Compression(nn.Module):
    """Layout, fixed matrix and rotation of the slots. Nothing here is trained."""

    matrix_Sc: Tensor

    def __init__(self, config: ModelConfig, rotary: Rotary | None) -> None:
        super().__init__()
        self.layout = Layout.of(config.proj_ratio, config.proj_ratio_min, config.num_keep_boundary_chunk)
        matrix_Sc = torch.as_tensor(projection(self.layout, config.projection))
        self.register_buffer("matrix_Sc", matrix_Sc, persistent=False)
        self.rotary = rotary
        self.slot_rotary = None
        if rotary is not None:
            positions = self.layout.slot_positions(-(-config.max_context // self.layout.chunk))
            self.slot_rotary = Rotary(positions, config.head_size, config.rope_base)

    def turn(self, x_BTHd: Tensor, start: int) -> Tensor:
        """Rotate whole queries or keys, the first at position `start`."""
        if self.rotary is None:
            return x_BTHd
        turned_BTHd: Tensor = self.rotary(x_BTHd, start)
        return turned_BTHd

    def pool(self, x_BTHd: Tensor, far_only: bool = False) -> Tensor:
        """Slots (B, M, S, H, d) of the complete chunks among whole, unrotated keys or values (B, T, H, d).

        `far_only`: only the last slot, which stands for the whole chunk.
        """
        n_chunks, size = x_BTHd.shape[1] // self.layout.chunk, x_BTHd.shape[2] * x_BTHd.shape[3]
        matrix_Sc = self.matrix_Sc[-1:] if far_only else self.matrix_Sc
        whole_BTHd = x_BTHd[:, : n_chunks * self.layout.chunk]
        x_BMcD = whole_BTHd.reshape(x_BTHd.shape[0], n_chunks, self.layout.chunk, size)
        slots_BMSD = torch.matmul(matrix_Sc.to(x_BTHd.dtype), x_BMcD)
        return slots_BMSD.view(*slots_BMSD.shape[:3], *x_BTHd.shape[2:])

    def pool_keys(self, keys_BTHd: Tensor, first_chunk: int = 0, far_only: bool = False) -> Tensor:
        """The same for keys, turned at the slots' positions; the keys' first chunk is `first_chunk`."""
        slots_BMSHd = self.pool(keys_BTHd, far_only)
        if self.slot_rotary is None:
            return slots_BMSHd
        n_slots = self.matrix_Sc.shape[0]
        start, step = first_chunk * n_slots, 1
        if far_only:
            start, step = start + n_slots - 1, n_slots
        turned_BTHd: Tensor = self.slot_rotary(slots_BMSHd.flatten(1, 2), start, step)
        return turned_BTHd.view(slots_BMSHd.shape)


def dense_bias(layout: Layout, length: int, device: torch.device) -> Tensor:
    """What is added to the scores of `length` queries over all whole keys and then all slots: 0, ln r, or -inf.

    (T, T + M S), float32, M being the complete chunks.
    """
    # A compiler would not know the cache; within one kernel the bias costs nothing.
    return (
        _dense_bias(layout, length, device)
        if torch.compiler.is_compiling()
        else _kept_bias(layout, length, device)
    )


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # a cached tensor may be wanted by a backward pass later
def _kept_bias(layout: Layout, length: int, device: torch.device) -> Tensor:
    return _dense_bias(layout, length, device)


def _dense_bias(layout: Layout, length: int, device: torch.device) -> Tensor:
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
