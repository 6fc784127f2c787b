"""Compressed attention without a cache: densely for short sequences, by blocks of chunks for long ones.

A block's scores are two products side by side: its queries with the far keys (the oldest chunks and one slot a chunk,
shared by all chunks), and each chunk's queries with its own near keys (the newest chunks and the finer slots). Only the
layer's own input is kept for the backward pass, which computes each block again: memory is linear in T, and below that
of fused full attention, which keeps rotated queries and keys and its result.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.models.compression import Compression, dense_bias
from pylm.models.layout import Layout

# Axes: B sequences, T positions, H heads, d features of a head, N = B x H; M chunks, S slots of a chunk, c positions of
# a chunk; within a block G chunks, Q queries, K keys.


def dense_attention(shared: Compression, q_BTHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor) -> Tensor:
    """All scores at once, masked; q and k unrotated. Returns (B, T, H, d). The slow twin of `block_attention`."""
    bias = dense_bias(shared.layout, q_BTHd.shape[1], q_BTHd.device).to(q_BTHd.dtype)
    keys_BTHd = torch.cat((shared.turn(k_BTHd, 0), shared.pool_keys(k_BTHd).flatten(1, 2)), dim=1)
    values_BTHd = torch.cat((v_BTHd, shared.pool(v_BTHd).flatten(1, 2)), dim=1)
    q_BHTd, keys_BHTd, values_BHTd = (
        x.transpose(1, 2) for x in (shared.turn(q_BTHd, 0), keys_BTHd, values_BTHd)
    )
    return F.scaled_dot_product_attention(q_BHTd, keys_BHTd, values_BHTd, attn_mask=bias).transpose(1, 2)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a loop over blocks, with its own gradient
def block_attention(shared: Compression, q_BTHd: Tensor, k_BTHd: Tensor, v_BTHd: Tensor) -> Tensor:
    """The same by blocks, for more than `settled` chunks."""
    mixed_BTHd: Tensor = _Blocks.apply(q_BTHd, k_BTHd, v_BTHd, shared)
    return mixed_BTHd


class _Blocks(torch.autograd.Function):
    """Keeps its inputs alone; each part's gradient is torch's own, of a forward pass repeated on that part."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, shared: Compression) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.shared = shared
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        with _no_autocast(q.device.type):
            oldest, rest, head = _parts(shared.layout, q.shape[1])
            out[:, head] = dense_attention(shared, q[:, head], k[:, head], v[:, head])
            far_k, far_v = _far_keys(shared, k[:, oldest], k[:, rest]), _far(shared, v[:, oldest], v[:, rest])
            for first, last in _blocks(shared.layout, q):
                rows, window, far = _extent(shared.layout, first, last, q.shape[1])
                out[:, rows] = _block(
                    shared, first, q[:, rows], k[:, window], v[:, window], far_k[:, far], far_v[:, far]
                )
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        shared: Compression = ctx.shared
        grad = grads[0]
        dq, dk, dv = (torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
        with _no_autocast(q.device.type):
            oldest, rest, head = _parts(shared.layout, q.shape[1])
            far_k, far_v = _far_keys(shared, k[:, oldest], k[:, rest]), _far(shared, v[:, oldest], v[:, rest])
            dfar_k, dfar_v = torch.zeros_like(far_k), torch.zeros_like(far_v)
            for first, last in _blocks(shared.layout, q):
                rows, window, far = _extent(shared.layout, first, last, q.shape[1])
                inputs = (q[:, rows], k[:, window], v[:, window], far_k[:, far], far_v[:, far])
                sums = (dq[:, rows], dk[:, window], dv[:, window], dfar_k[:, far], dfar_v[:, far])
                _add_gradients(partial(_block, shared, first), inputs, grad[:, rows], sums)
            _add_gradients(
                partial(dense_attention, shared),
                (q[:, head], k[:, head], v[:, head]),
                grad[:, head],
                (dq[:, head], dk[:, head], dv[:, head]),
            )
            _add_gradients(
                partial(_far_keys, shared), (k[:, oldest], k[:, rest]), dfar_k, (dk[:, oldest], dk[:, rest])
            )
            _add_gradients(
                partial(_far, shared), (v[:, oldest], v[:, rest]), dfar_v, (dv[:, oldest], dv[:, rest])
            )
        return dq, dk, dv, None


def _no_autocast(device: str) -> AbstractContextManager[object]:
    """Keep the inputs' dtype in both passes: autocast is on in the forward pass and off in the backward pass."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _add_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor, sums: Sequence[Tensor]
) -> None:
    """Add the gradients of one part's inputs to their sums."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = function(*leaves)
    for total, part in zip(sums, torch.autograd.grad(out, leaves, grad), strict=True):
        total += part


def _parts(layout: Layout, length: int) -> tuple[slice, slice, slice]:
    """Positions of the oldest chunks, of the other complete ones, and of those that blocks do not cover."""
    oldest = layout.boundary * layout.chunk
    complete = length // layout.chunk * layout.chunk
    return slice(0, oldest), slice(oldest, complete), slice(0, layout.settled * layout.chunk)


def _blocks(layout: Layout, q_BTHd: Tensor) -> list[tuple[int, int]]:
    batch, length, n_heads, _ = q_BTHd.shape
    return layout.blocks(length, batch * n_heads, q_BTHd.device.type)


def _extent(layout: Layout, first: int, last: int, length: int) -> tuple[slice, slice, slice]:
    """Positions of a block's queries, of the chunks its near keys come from, and its far keys."""
    end = min(last * layout.chunk, length)
    start = (first - layout.far + 1) * layout.chunk
    return slice(first * layout.chunk, end), slice(start, end), slice(0, layout.n_far(last))


def _far(shared: Compression, oldest_BTHd: Tensor, rest_BTHd: Tensor) -> Tensor:
    """Values of the oldest chunks, then of one slot of each other complete chunk: (N, K, d)."""
    slots_BMHd = shared.pool(rest_BTHd, far_only=True)[:, :, 0]
    return torch.cat((oldest_BTHd, slots_BMHd), dim=1).transpose(1, 2).flatten(0, 1)


def _far_keys(shared: Compression, oldest_BTHd: Tensor, rest_BTHd: Tensor) -> Tensor:
    """The same for keys, turned."""
    slots_BMHd = shared.pool_keys(rest_BTHd, shared.layout.boundary, far_only=True)[:, :, 0]
    return torch.cat((shared.turn(oldest_BTHd, 0), slots_BMHd), dim=1).transpose(1, 2).flatten(0, 1)


def _block(
    shared: Compression,
    first: int,
    q_BQHd: Tensor,
    k_BWHd: Tensor,
    v_BWHd: Tensor,
    far_k_NKd: Tensor,
    far_v_NKd: Tensor,
) -> Tensor:
    """Attention of the queries from chunk `first` on, (B, Q, H, d); k and v are those of the window, unrotated."""
    layout = shared.layout
    batch, n_queries, _, size = q_BQHd.shape
    window = first - layout.far + 1
    n_chunks = -(-n_queries // layout.chunk)
    padding = n_chunks * layout.chunk - n_queries
    near_k = _near(
        layout,
        shared.turn(k_BWHd, window * layout.chunk),
        shared.pool_keys(k_BWHd, window),
        n_chunks,
        padding,
    )
    near_v = _near(layout, v_BWHd, shared.pool(v_BWHd), n_chunks, padding)
    q_BQHd = F.pad(shared.turn(q_BQHd, first * layout.chunk), (0, 0, 0, 0, 0, padding))
    q_NQd = q_BQHd.transpose(1, 2).flatten(0, 1)
    by_chunk = q_NQd.reshape(-1, layout.chunk, size)
    far_bias, near_bias = _biases(layout, n_chunks, far_k_NKd.shape[1], q_NQd.device)
    far_NQK = torch.baddbmm(far_bias.to(q_NQd.dtype), q_NQd, far_k_NKd.transpose(1, 2), alpha=size**-0.5)
    near = torch.baddbmm(near_bias.to(q_NQd.dtype), by_chunk, near_k.transpose(1, 2), alpha=size**-0.5)
    scores_NQK = torch.cat((far_NQK, near.view(*q_NQd.shape[:2], -1)), dim=2)
    weights_NQK = scores_NQK.softmax(-1, dtype=torch.promote_types(torch.float32, q_NQd.dtype)).to(
        q_NQd.dtype
    )
    n_far = far_k_NKd.shape[1]
    near_weights = weights_NQK.view(*by_chunk.shape[:2], -1)[:, :, n_far:]
    mixed_NQd = torch.baddbmm(
        torch.bmm(near_weights, near_v).view(q_NQd.shape), weights_NQK[:, :, :n_far], far_v_NKd
    )
    return mixed_NQd.view(batch, -1, *mixed_NQd.shape[1:]).transpose(1, 2)[:, :n_queries]


def _near(layout: Layout, whole_BWHd: Tensor, slots_BMSHd: Tensor, n_chunks: int, padding: int) -> Tensor:
    """Each chunk's own keys (or values), (N x G, K, d): the newest chunks, then the finer slots.

    The window begins far - 1 chunks before the block.
    """
    padded_BWHd = F.pad(whole_BWHd, (0, 0, 0, 0, 0, padding))
    whole_BMcHd = padded_BWHd.view(whole_BWHd.shape[0], -1, layout.chunk, *whole_BWHd.shape[2:])
    views = []
    for back in range(layout.boundary - 1, -1, -1):
        start = layout.far - 1 - back
        views.append(whole_BMcHd[:, start : start + n_chunks])
    column = 0
    for i, size in enumerate(layout.sizes[:-1]):
        start = layout.far - 1 - layout.boundary - i
        views.append(slots_BMSHd[:, start : start + n_chunks, column : column + size])
        column += size
    return torch.cat([view.permute(0, 3, 1, 2, 4) for view in views], dim=3).flatten(0, 2)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a cached tensor may be wanted by a backward pass later
def _biases(layout: Layout, n_chunks: int, n_far: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What is added to scores of far keys (Q, K) and of near ones (c, K): ln r for slots, -inf for what is not past."""
    chunk = layout.chunk
    far = torch.zeros(n_chunks, n_far, device=device)
    far[:, layout.boundary * chunk :] = math.log(chunk)
    later = torch.ones(n_chunks, n_chunks, dtype=torch.bool, device=device).triu(1)
    far[:, n_far - n_chunks :].masked_fill_(later, -math.inf)
    own = torch.ones(chunk, chunk, dtype=torch.bool, device=device).triu(1)
    near = torch.zeros(chunk, layout.boundary * chunk, device=device)
    near[:, -chunk:].masked_fill_(own, -math.inf)
    slots = [
        math.log(r) for r, size in zip(layout.ratios[:-1], layout.sizes, strict=False) for _ in range(size)
    ]
    near = torch.cat((near, torch.tensor(slots, device=device).expand(chunk, -1)), dim=1)
    return far.repeat_interleave(chunk, 0), near
