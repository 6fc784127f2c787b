"""Key-value caches: what attention keeps of past tokens, so that a new token costs one position, not all."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Axes: B sequences, T positions, H heads of keys and values, d features of a head.


class LayerCache:
    """The past of one attention layer; a subclass says what is kept."""

    length: int = 0  # tokens seen

    def reset(self) -> None:
        """Forget everything; the next token is at position 0."""
        raise NotImplementedError

    def size_bytes(self) -> int:
        """Memory held now."""
        raise NotImplementedError


class FullCache(LayerCache):
    """Every key and value, in buffers that double up to `max_tokens`."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.length = 0
        self._keys_BHTd: Tensor | None = None
        self._values_BHTd: Tensor | None = None

    def append(self, keys_BHTd: Tensor, values_BHTd: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of new positions; returns those of all positions, as views."""
        end = self.length + keys_BHTd.shape[2]
        self._keys_BHTd = self._put(self._keys_BHTd, keys_BHTd, end)
        self._values_BHTd = self._put(self._values_BHTd, values_BHTd, end)
        self.length = end
        return self._keys_BHTd[:, :, :end], self._values_BHTd[:, :, :end]

    def reset(self) -> None:
        """Forget everything; the buffers stay."""
        self.length = 0

    def size_bytes(self) -> int:
        """Memory of both buffers."""
        return sum(
            t.numel() * t.element_size() for t in (self._keys_BHTd, self._values_BHTd) if t is not None
        )

    def _put(self, buffer_BHTd: Tensor | None, new_BHTd: Tensor, end: int) -> Tensor:
        if buffer_BHTd is None or buffer_BHTd.shape[2] < end:
            capacity = min(self.max_tokens, max(2 * end, 64))
            batch, heads, _, size = new_BHTd.shape
            grown_BHTd = new_BHTd.new_empty(batch, heads, capacity, size)
            if buffer_BHTd is not None:
                grown_BHTd[:, :, : self.length] = buffer_BHTd[:, :, : self.length]
            buffer_BHTd = grown_BHTd
        buffer_BHTd[:, :, self.length : end] = new_BHTd
        return buffer_BHTd


class Cache:
    """The caches of all layers of one model, in step with each other."""

    def __init__(self, layers: Sequence[LayerCache], batch_size: int, max_tokens: int) -> None:
        self.layers = list(layers)
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.recent_BT: Tensor | None = (
            None  # the newest ids, as many as an embedding's convolution reaches back
        )

    @property
    def length(self) -> int:
        """Tokens seen; the position of the next one."""
        return self.layers[0].length

    def reset(self) -> None:
        """Forget everything; the next token is at position 0."""
        self.recent_BT = None
        for layer in self.layers:
            layer.reset()

    def size_bytes(self) -> int:
        """Memory held now by all layers."""
        return sum(layer.size_bytes() for layer in self.layers)


def causal_mask(n_queries: int, n_keys: int, device: torch.device) -> Tensor:
    """True where the last `n_queries` of `n_keys` positions may look: (n_queries, n_keys), bool."""
    mask = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
    return mask.tril(n_keys - n_queries)
