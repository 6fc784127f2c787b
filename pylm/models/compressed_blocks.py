"""Compressed attention by blocks of chunks: time and memory grow with the keys that are seen, not with T x T.

A block's scores are two products side by side: its queries with the far keys (the oldest chunks and one slot a chunk,
shared by all), and each chunk's queries with its own near keys (the newest chunks and the finer slots). The backward
pass computes a block's weights again, so that only inputs are kept.
"""

import math
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.models.compression import Layout, dense_bias

# Axes: N = B x H sequences and heads, T positions, M chunks, c positions of a chunk, S slots of a chunk, d features of
# a head; within a block G chunks, Q queries, K keys.

# Scores of one block, all heads. 4 MB stay in a CPU's caches (8,192 positions, 16 heads of 64, one thread: 1.6 s with
# 2^20 or 2^21 numbers, 2.3 with 2^18); a GPU wants fewer, larger steps.
BLOCK_SCORES = {"cpu": 2**20, "cuda": 2**25}


def dense_attention(
    layout: Layout, q: Tensor, k: Tensor, v: Tensor, k_slots: Tensor, v_slots: Tensor
) -> Tensor:
    """All scores at once, masked: for short sequences, and the slow twin of `block_attention`.

    q, k, v: (N, T, d), rotated; slots: (N, M, S, d), rotated at their own positions. Returns (N, T, d).
    """
    bias = dense_bias(layout, q.shape[1], q.device).to(q.dtype)
    keys, values = torch.cat((k, k_slots.flatten(1, 2)), 1), torch.cat((v, v_slots.flatten(1, 2)), 1)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=bias)


def block_attention(
    layout: Layout, q: Tensor, k: Tensor, v: Tensor, k_slots: Tensor, v_slots: Tensor
) -> Tensor:
    """The same by blocks of chunks, in memory linear in T, without the scores that would be masked.

    T may be any number above `settled` chunks.
    """
    start = layout.settled * layout.chunk
    head = dense_attention(
        layout,
        q[:, :start],
        k[:, :start],
        v[:, :start],
        k_slots[:, : layout.settled],
        v_slots[:, : layout.settled],
    )
    padding = -q.shape[1] % layout.chunk
    if padding:
        q, k, v = (F.pad(x, (0, 0, 0, padding)) for x in (q, k, v))
        # The unfinished chunk is nobody's past yet: its slots are never read.
        k_slots, v_slots = (F.pad(x, (0, 0, 0, 0, 0, 1)) for x in (k_slots, v_slots))
    tail: Tensor = _Blocks.apply(q[:, start:] * q.shape[2] ** -0.5, k, v, k_slots, v_slots, layout)
    return torch.cat((head, tail[:, : tail.shape[1] - padding]), dim=1)


class _Blocks(torch.autograd.Function):
    """Attention of the chunks from `settled` on; the backward pass computes each block's weights again."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, k_slots: Tensor, v_slots: Tensor, layout: Layout
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, k_slots, v_slots)
        ctx.layout = layout
        keys, values = _Keys(layout, k, k_slots), _Keys(layout, v, v_slots)
        out = torch.empty_like(q)
        for first, last in _blocks(layout, q, k_slots.shape[1]):
            rows = slice((first - layout.settled) * layout.chunk, (last - layout.settled) * layout.chunk)
            near = keys.near(first, last)
            weights = _weights(layout, q[:, rows], keys.far(last), near)
            out[:, rows] = _sum(weights, values.far(last), values.near(first, last))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layout: Layout = ctx.layout
        q, k, v, k_slots, v_slots = ctx.saved_tensors
        keys, values = _Keys(layout, k, k_slots), _Keys(layout, v, v_slots)
        k_grads, v_grads = _KeyGrads(layout, k, k_slots), _KeyGrads(layout, v, v_slots)
        q_grad = torch.empty_like(q)
        for first, last in _blocks(layout, q, k_slots.shape[1]):
            rows = slice((first - layout.settled) * layout.chunk, (last - layout.settled) * layout.chunk)
            near, far = keys.near(first, last), keys.far(last)
            query, grad = q[:, rows], grads[0][:, rows].contiguous()
            weights = _weights(layout, query, far, near)
            v_grads.add(first, last, weights, grad)
            score_grad = _products(grad, values.far(last), values.near(first, last)).mul_(weights)
            score_grad.addcmul_(weights, score_grad.sum(-1, keepdim=True), value=-1)
            q_grad[:, rows] = _sum(score_grad, far, near)
            k_grads.add(first, last, score_grad, query)
        k_grad, k_slot_grad = k_grads.finish()
        v_grad, v_slot_grad = v_grads.finish()
        return q_grad, k_grad, v_grad, k_slot_grad, v_slot_grad, None


class _Keys:
    """Keys (or values) as a block of chunks sees them: the far ones shared by all chunks, the near ones by chunk."""

    def __init__(self, layout: Layout, whole_NTd: Tensor, slots_NMSd: Tensor) -> None:
        self.layout = layout
        self.whole_NMcd = whole_NTd.view(whole_NTd.shape[0], -1, layout.chunk, whole_NTd.shape[2])
        self.slots_NMSd = slots_NMSd
        oldest = whole_NTd[:, : layout.boundary * layout.chunk]
        self.far_NKd = torch.cat((oldest, slots_NMSd[:, layout.boundary :, -1]), dim=1)

    def far(self, last: int) -> Tensor:
        """The oldest chunks, then the slots that chunks before `last` may see: (N, K, d)."""
        return self.far_NKd[:, : self.layout.n_far(last)]

    def near(self, first: int, last: int) -> Tensor:
        """The newest chunks and the finer slots of each chunk in first..last, (N x G, K, d)."""
        return torch.cat(
            _near_views(self.layout, self.whole_NMcd, self.slots_NMSd, first, last), dim=2
        ).flatten(0, 1)


class _KeyGrads:
    """Gradients of keys (or values), summed over blocks."""

    def __init__(self, layout: Layout, whole_NTd: Tensor, slots_NMSd: Tensor) -> None:
        self.layout = layout
        self.whole_NTd = torch.zeros_like(whole_NTd)
        self.slots_NMSd = torch.zeros_like(slots_NMSd)
        n_far = layout.boundary * (layout.chunk - 1) + slots_NMSd.shape[1]
        self.far_NKd = whole_NTd.new_zeros(whole_NTd.shape[0], n_far, whole_NTd.shape[2])

    def add(self, first: int, last: int, left_NQK: Tensor, right_NQd: Tensor) -> None:
        """Add left^T right, the gradient of the block's keys."""
        n_far = self.layout.n_far(last)
        self.far_NKd[:, :n_far].baddbmm_(left_NQK[:, :, :n_far].transpose(1, 2), right_NQd)
        by_chunk = left_NQK.view(-1, self.layout.chunk, left_NQK.shape[2])[:, :, n_far:]
        right = right_NQd.reshape(-1, self.layout.chunk, right_NQd.shape[2])
        near = torch.bmm(by_chunk.transpose(1, 2), right).view(
            left_NQK.shape[0], last - first, -1, right.shape[2]
        )
        whole_NMcd = self.whole_NTd.view(near.shape[0], -1, self.layout.chunk, near.shape[3])
        views = _near_views(self.layout, whole_NMcd, self.slots_NMSd, first, last)
        for view, part in zip(views, torch.split(near, [v.shape[2] for v in views], dim=2), strict=True):
            view += part

    def finish(self) -> tuple[Tensor, Tensor]:
        """Gradients of the whole keys and of the slots."""
        n_oldest = self.layout.boundary * self.layout.chunk
        self.whole_NTd[:, :n_oldest] += self.far_NKd[:, :n_oldest]
        self.slots_NMSd[:, self.layout.boundary :, -1] += self.far_NKd[:, n_oldest:]
        return self.whole_NTd, self.slots_NMSd


def _near_views(
    layout: Layout, whole_NMcd: Tensor, slots_NMSd: Tensor, first: int, last: int
) -> list[Tensor]:
    """What chunks first..last see besides the far keys, each a view (N, G, ., d): newest chunks, then finer slots."""
    views = []
    for back in range(layout.boundary - 1, -1, -1):
        views.append(whole_NMcd[:, first - back : last - back])
    column = 0
    for i, size in enumerate(layout.sizes[:-1]):
        back = layout.boundary + i
        views.append(slots_NMSd[:, first - back : last - back, column : column + size])
        column += size
    return views


def _weights(layout: Layout, query_NQd: Tensor, far_NKd: Tensor, near: Tensor) -> Tensor:
    """Softmax over a block's far and near keys, (N, Q, K)."""
    scores_NQK = _products(query_NQd, far_NKd, near)
    scores_NQK += _bias(layout, query_NQd.shape[1], far_NKd.shape[1], query_NQd.device)
    return scores_NQK.softmax(-1)


def _products(left_NQd: Tensor, far_NKd: Tensor, near: Tensor) -> Tensor:
    """Each row of `left` times the far keys and times its own chunk's near keys, side by side."""
    n, rows, size = left_NQd.shape
    chunk = n * rows // near.shape[0]
    out_NQK = left_NQd.new_empty(n, rows, far_NKd.shape[1] + near.shape[1])
    torch.bmm(left_NQd, far_NKd.transpose(1, 2), out=out_NQK[:, :, : far_NKd.shape[1]])
    by_chunk = out_NQK.view(-1, chunk, out_NQK.shape[2])[:, :, far_NKd.shape[1] :]
    torch.bmm(left_NQd.reshape(-1, chunk, size), near.transpose(1, 2), out=by_chunk)
    return out_NQK


def _sum(weights_NQK: Tensor, far_NKd: Tensor, near: Tensor) -> Tensor:
    """Weighted sum of far and near rows, (N, Q, d)."""
    n, rows, n_keys = weights_NQK.shape
    n_far = far_NKd.shape[1]
    by_chunk = weights_NQK.view(near.shape[0], -1, n_keys)[:, :, n_far:]
    out_NQd = torch.bmm(by_chunk, near).view(n, rows, -1)
    return out_NQd.baddbmm_(weights_NQK[:, :, :n_far], far_NKd)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a cached tensor may be wanted by a backward pass later
def _bias(layout: Layout, n_queries: int, n_far: int, device: torch.device) -> Tensor:
    """What is added to a block's scores, (Q, K): causal in the own chunk, ln r for slots, no far slot too early."""
    chunk, n_chunks = layout.chunk, n_queries // layout.chunk
    n_oldest = layout.boundary * chunk
    far = torch.zeros(n_chunks, n_far, device=device)
    far[:, n_oldest:] = math.log(chunk)
    later = torch.ones(n_chunks, n_chunks, dtype=torch.bool, device=device).triu(1)
    far[:, n_far - n_chunks :].masked_fill_(later, -math.inf)
    near = torch.zeros(chunk, layout.boundary * chunk, device=device)
    near[:, -chunk:].masked_fill_(
        torch.ones(chunk, chunk, dtype=torch.bool, device=device).triu(1), -math.inf
    )
    slots = [
        math.log(r) for r, size in zip(layout.ratios[:-1], layout.sizes, strict=False) for _ in range(size)
    ]
    near = torch.cat((near, torch.tensor(slots, device=device).expand(chunk, -1)), dim=1)
    return torch.cat((far.repeat_interleave(chunk, 0), near.repeat(n_chunks, 1)), dim=1)


def _blocks(layout: Layout, q_NTd: Tensor, n_chunks: int) -> list[tuple[int, int]]:
    """Ranges of chunks, from `settled` on, whose scores fit the budget."""
    budget = BLOCK_SCORES.get(q_NTd.device.type, BLOCK_SCORES["cuda"])
    n_near = layout.boundary * layout.chunk + sum(layout.sizes[:-1])
    ranges = []
    first = layout.settled
    while first < n_chunks:
        row = q_NTd.shape[0] * layout.chunk * (layout.n_far(first + 1) + n_near)
        last = min(n_chunks, first + max(1, min(budget // row, 64)))
        ranges.append((first, last))
        first = last
    return ranges
