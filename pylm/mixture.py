"""Several datasets as one: which of them each sample comes from, by weights, computed for any sample by itself."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pylm.batches import key, permute
from pylm.dataset import Dataset, ShardedTokens, Split
from pylm.errors import ConfigError

BLOCK = 4096  # samples that hold the weights exactly; so a weight is a multiple of 1/4096


class Interleaving:
    """Sample k of the run is sample i of source s: weights hold exactly in each BLOCK samples, in a seeded order."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        """The weights need not add up to 1. Raises ConfigError for one too small to be had."""
        shares = np.array(weights, np.float64) / sum(weights) * BLOCK
        counts = np.floor(shares).astype(np.int64)
        # The largest remainders get what rounding down left over; of equal ones the first.
        left_over = np.argsort(counts - shares, kind="stable")[: BLOCK - int(counts.sum())]
        counts[left_over] += 1
        if (counts == 0).any():
            raise ConfigError(f"weights {list(weights)}: each must be at least 1/{BLOCK} of their sum")
        self.counts = counts
        self._ends = np.cumsum(counts)
        self._seed = seed

    def locate(self, samples_N: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The source of each sample, and its number among the samples of that source."""
        if len(self.counts) == 1:
            return np.zeros_like(samples_N), samples_N
        blocks_N, slots_N = np.divmod(samples_N, BLOCK)
        for block in np.unique(blocks_N):
            mine = blocks_N == block
            order = permute(slots_N[mine].astype(np.uint64), BLOCK, key(self._seed ^ 0x313C, int(block)))
            slots_N[mine] = order.astype(np.int64)
        sources_N = np.searchsorted(self._ends, slots_N, side="right")
        within_N = slots_N - (self._ends - self.counts)[sources_N]
        return sources_N, blocks_N * self.counts[sources_N] + within_N


@dataclass(frozen=True)
class Mixture:
    """The datasets of a run, one or several of the same tokenizer; a run is named after them."""

    datasets: tuple[Dataset, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, datasets: Sequence[Dataset], weights: Sequence[float] | None) -> Self:
        """Without weights, every token counts the same. Raises ConfigError for datasets that do not go together."""
        first = datasets[0]
        for other in datasets[1:]:
            if other.tokenizer_sha256 != first.tokenizer_sha256:
                raise ConfigError(
                    f"{first.path} and {other.path} have different tokenizers "
                    f"({first.tokenizer_sha256[:12]} and {other.tokenizer_sha256[:12]}): "
                    f"make one with --tokenizer {first.path}/tokenizer.json"
                )
        if len({dataset.path.resolve() for dataset in datasets}) < len(datasets):
            raise ConfigError("--data: a dataset is named twice; give it a larger weight instead")
        return cls(tuple(datasets), tuple(weights or [d.train.n_tokens for d in datasets]))

    @property
    def first(self) -> Dataset:
        """The first dataset: its tokenizer, and so its ids, are those of all."""
        return self.datasets[0]

    @property
    def path(self) -> str:
        """The folders, for people."""
        return ", ".join(str(dataset.path) for dataset in self.datasets)

    @property
    def name(self) -> str:
        """The names joined."""
        return "+".join(dataset.name for dataset in self.datasets)

    @property
    def sha256(self) -> str:
        """The identity of all tokens."""
        if len(self.datasets) == 1:
            return self.first.sha256
        return hashlib.sha256("\n".join(d.sha256 for d in self.datasets).encode()).hexdigest()

    @property
    def n_train_tokens(self) -> int:
        """Training tokens of all."""
        return sum(dataset.train.n_tokens for dataset in self.datasets)

    @property
    def end_of_text_id(self) -> int | None:
        """The id that ends each document, None when documents follow each other bare."""
        return self.first.end_of_text_id

    @property
    def val(self) -> Split | None:
        """The validation texts, one after another; None where no dataset has one."""
        splits = [dataset.val for dataset in self.datasets if dataset.val is not None]
        return joined(splits) if splits else None


def joined(splits: Sequence[Split]) -> Split:
    """Splits of one tokenizer as one: the same files, mapped; offsets counted on."""
    if len(splits) == 1:
        return splits[0]
    shards = [
        shard
        for split in splits
        for shard in (split.tokens.shards if isinstance(split.tokens, ShardedTokens) else [split.tokens])
    ]
    starts = np.cumsum([0, *(split.n_tokens for split in splits)]).astype(np.uint64)
    offsets = [split.offsets[:-1] + start for split, start in zip(splits, starts, strict=False)]
    return Split(
        splits[0].name,
        ShardedTokens(shards),
        np.concatenate([*offsets, starts[-1:]]),
        sum(split.n_tokens for split in splits),
        sum(split.n_documents for split in splits),
        sum(split.text_bytes for split in splits),
    )
