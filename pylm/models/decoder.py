"""What all families share: tokens to features to logits, positions, caches, recomputed activations.

A family makes its blocks in `__init__`; everything else is here.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from pylm.errors import ConfigError
from pylm.models.attention import Attention
from pylm.models.cache import Cache, LayerCache
from pylm.models.compressed import CompressedAttention
from pylm.models.compression import Compression
from pylm.models.config import ModelConfig
from pylm.models.documents import Documents
from pylm.models.layers import Embedding, EmbeddingConvolution, Linear, make_norm
from pylm.models.products import arithmetic_dtype
from pylm.models.rotary import Rotary

# Axes: B sequences, T positions, D model width, V vocabulary.


class Block(nn.Module):
    """One layer of a decoder: features to features, with a cache of its own."""

    def forward(self, x_BTD: Tensor, cache: Any = None) -> Tensor:
        """(B, T, D) to (B, T, D); the cache is one of `new_cache`'s, or Documents in its place."""
        raise NotImplementedError

    def recomputed(self, x_BTD: Tensor, documents: Documents | None) -> Tensor:
        """The same for training, keeping its input alone; the backward pass recomputes what it needs."""
        y_BTD: Tensor = checkpoint(self, x_BTD, documents, use_reentrant=False)
        return y_BTD

    def new_cache(self, max_tokens: int) -> LayerCache:
        """An empty cache for up to `max_tokens` positions."""
        raise NotImplementedError


class Decoder(nn.Module):
    """A causal language model. Logits at a position depend on tokens up to it, and on nothing later."""

    def __init__(
        self, config: ModelConfig, blocks: Iterable[Block], final_norm: nn.Module, final_width: int
    ) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = (
            False  # recompute each block in the backward pass instead of keeping it
        )
        self.embedding = Embedding(config.vocab_size, config.width)
        self.positions = _position_table(config)
        self.embedding_convolution = (
            EmbeddingConvolution(config.embedding_conv, config.width) if config.embedding_conv else None
        )
        self.input_norm = make_norm(config, config.width) if config.embedding_norm else nn.Identity()
        self.embedding_dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = final_norm
        self.head = None if config.tied else Linear(final_width, config.vocab_size, config.head_bias, "head")

    def forward(self, tokens_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each position.

        tokens_BT: int64 or int32 ids below vocab_size. With a cache, tokens continue what it has seen,
        and it takes them in. Raises ConfigError when that exceeds max_context or the cache.
        """
        return F.linear(self.features(tokens_BT, cache), self.head_weight, self.head_bias)

    def features(
        self, tokens_BT: Tensor, cache: Cache | None = None, documents: Documents | None = None
    ) -> Tensor:
        """The same up to the head: (B, T, D), after the final norm. `documents` are those of a training window."""
        self._check_length(tokens_BT.shape[1] + (0 if cache is None else cache.length), cache)
        if cache is None:
            return self._features_of(self.embed(tokens_BT, _start(documents)), None, documents)
        return self._features_of(self._embed_after(cache, tokens_BT), cache, documents)

    def features_and_head(
        self, tokens_BT: Tensor, documents: Documents | None = None
    ) -> tuple[Tensor, Tensor]:
        """The features, and the head's matrix (V, D) for a loss of them: on a CPU a tied one has one gradient.

        The head's gradient is then added to in place: what the loss gives for it has to be its own.
        """
        self._check_length(tokens_BT.shape[1], None)
        if self.head is not None or tokens_BT.device.type != "cpu":
            return self.features(tokens_BT, documents=documents), self.head_weight
        rows_BTD, head_VD = _TiedTable.apply(self.embedding.weight, tokens_BT)
        return self._features_of(self.enter(rows_BTD, _start(documents)), None, documents), head_VD

    def _features_of(self, x_BTD: Tensor, cache: Cache | None, documents: Documents | None) -> Tensor:
        recompute = self.activation_checkpointing and cache is None and torch.is_grad_enabled()
        for index, block in enumerate(self.blocks):
            if recompute:
                assert isinstance(block, Block)
                x_BTD = block.recomputed(x_BTD, documents)
            else:
                x_BTD = block(x_BTD, documents if cache is None else cache.layers[index])
        normed_BTD: Tensor = self.final_norm(x_BTD)
        return normed_BTD

    def embed(self, tokens_BT: Tensor, start: int | Tensor) -> Tensor:
        """What the first block sees: (B, T, D)."""
        return self.enter(self.embedding(tokens_BT), start)

    def enter(self, x_BTD: Tensor, start: int | Tensor) -> Tensor:
        """Token vectors plus those of the positions from `start` on (or all given, (B, T)), where there are such.

        Under autocast they come in its dtype, and so does all that the blocks add to them.
        """
        if self.positions is not None:
            rows = start if isinstance(start, Tensor) else slice(start, start + x_BTD.shape[1])
            x_BTD = x_BTD + self.positions.weight[rows]
        if self.embedding_convolution is not None:
            x_BTD = self.embedding_convolution(x_BTD, start if isinstance(start, Tensor) else None)
        x_BTD = self.input_norm(x_BTD)
        dropped_BTD: Tensor = self.embedding_dropout(x_BTD)
        return dropped_BTD.to(arithmetic_dtype(dropped_BTD))

    def _embed_after(self, cache: Cache, tokens_BT: Tensor) -> Tensor:
        """`embed` of the tokens that follow a cache's, with as many of those again as the convolution reaches."""
        reach = max(0, self.config.embedding_conv - 1)
        recent_BT = tokens_BT if cache.recent_BT is None else torch.cat((cache.recent_BT, tokens_BT), dim=1)
        n_again = recent_BT.shape[1] - tokens_BT.shape[1]
        cache.recent_BT = recent_BT[:, -reach:] if reach else None
        return self.embed(recent_BT, cache.length - n_again)[:, n_again:]

    @property
    def head_weight(self) -> Tensor:
        """The head's matrix (V, D): logits = features @ head_weight.T + head_bias."""
        return self.embedding.weight if self.head is None else self.head.weight

    @property
    def head_bias(self) -> Tensor | None:
        """The head's bias (V), or None."""
        return None if self.head is None else self.head.bias

    def new_cache(self, batch_size: int, max_tokens: int | None = None) -> Cache:
        """An empty cache for `batch_size` sequences of at most `max_tokens` (default, limit: max_context)."""
        max_tokens = self.config.max_context if max_tokens is None else max_tokens
        if not 1 <= max_tokens <= self.config.max_context:
            raise ConfigError(
                f"cache for {max_tokens} tokens: expected 1 to model.max_context {self.config.max_context}"
            )
        layers = [block.new_cache(max_tokens) for block in self.blocks if isinstance(block, Block)]
        return Cache(layers, batch_size, max_tokens)

    def n_parameters(self) -> int:
        """Trained numbers; a tied table counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _check_length(self, n_tokens: int, cache: Cache | None) -> None:
        limit = self.config.max_context if cache is None else cache.max_tokens
        if n_tokens > limit:
            holder = "model.max_context" if cache is None else "the cache's max_tokens"
            raise ConfigError(f"{n_tokens} tokens exceed {holder}, {limit}: give fewer, or reset the cache")


class _TiedTable(torch.autograd.Function):
    """Rows of a table, and the table for the head: the rows' gradient is added to the head's where that stands.

    By themselves the rows have one as large as the table, nearly all zeros. V 32,000 x 384, 4 x 256 tokens: 15 ms of a
    step of 340.
    """

    @staticmethod
    def forward(ctx: Any, table_VD: Tensor, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids_BT)
        return F.embedding(ids_BT, table_VD), table_VD.view_as(table_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad_BTD, grad_VD = grads
        (ids_BT,) = ctx.saved_tensors
        return grad_VD.index_add_(0, ids_BT.flatten(), grad_BTD.flatten(0, 1)), None


class Sinusoid(nn.Module):
    """Fixed positions: sine in even features, cosine in odd (Vaswani et al. 2017)."""

    weight: Tensor

    def __init__(self, max_context: int, width: int) -> None:
        super().__init__()
        angles = np.arange(max_context)[:, None] * 10_000.0 ** (-np.arange(0, width, 2) / width)
        table_TD = np.stack((np.sin(angles), np.cos(angles)), axis=-1).reshape(max_context, width)
        self.register_buffer("weight", torch.as_tensor(table_TD.astype(np.float32)), persistent=False)


def _start(documents: Documents | None) -> int | Tensor:
    """Where the positions of a training window begin."""
    return 0 if documents is None else documents.positions_BT


def attention_maker(config: ModelConfig) -> Callable[[], Attention]:
    """What makes each layer's attention, of the config's kind; the layers share their tables."""
    rotary = make_rotary(config)
    if config.attention == "compressed":
        compression = Compression(config, rotary)
        return lambda: CompressedAttention(config, rotary, compression)
    return lambda: Attention(config, rotary)


def make_rotary(config: ModelConfig) -> Rotary | None:
    """The rotation shared by all layers, where the config has one."""
    if config.positions != "rope":
        return None
    return Rotary(np.arange(config.max_context, dtype=np.float64), config.head_size, config.rope_base)


def _position_table(config: ModelConfig) -> Embedding | Sinusoid | None:
    if config.positions == "learned":
        return Embedding(config.max_context, config.width)
    return Sinusoid(config.max_context, config.width) if config.positions == "sinusoid" else None
