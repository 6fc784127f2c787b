"""The samples of a run by number: windows of one or several texts, their documents, and noise on request.

Everything is a function of (tokens, seed, sample number). So the same samples come in the same order whatever the
micro-batch, the accumulation, the number of devices, or how often the run was stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pylm.batches import Windows, key, mix
from pylm.config import TrainConfig
from pylm.dataset import Split
from pylm.loss import IGNORED
from pylm.mixture import Interleaving

# Axes: N samples, T positions of the context, L = T + 1 tokens of a window.


@dataclass(frozen=True)
class Batch:
    """Some samples as arrays (N, T); ids in the type they have on disk, so that little goes to a device."""

    inputs_NT: npt.NDArray[np.unsignedinteger]
    targets_NT: npt.NDArray[Any]  # unsigned, or int64 where some are IGNORED
    documents_NT: npt.NDArray[np.int64] | None  # the document of each input, where attention is to stay in it
    n_targets: int  # those that are not ignored


class Samples:
    """Training samples of splits that share a tokenizer."""

    def __init__(
        self,
        splits: Sequence[Split],
        weights: Sequence[float],
        settings: TrainConfig,
        *,
        end_of_text_id: int | None,
        vocab_size: int,
    ) -> None:
        """`settings` gives context, seed, document masking and noise."""
        self._windows = [Windows(split.tokens, settings.context, settings.seed) for split in splits]
        self._splits = splits
        self._order = Interleaving(weights, settings.seed)
        self._settings = settings
        self._separated = end_of_text_id is not None
        self._vocab_size = vocab_size
        self.n_windows = sum(windows.n_windows for windows in self._windows)

    def epoch_of(self, sample: int) -> int:
        """How often as many windows as there are have been seen before sample number `sample`."""
        return sample // self.n_windows

    def batch(self, first: int, n: int) -> Batch:
        """Samples first .. first + n."""
        samples_N = np.arange(first, first + n, dtype=np.int64)
        sources_N, indices_N = self._order.locate(samples_N)
        length = self._settings.context + 1
        ids_NL = np.empty((n, length), self._splits[0].tokens.dtype)
        documents_NL = np.empty((n, length), np.int64) if self._settings.document_masking else None
        for source in np.unique(sources_N):  # one for most runs
            mine = sources_N == source
            starts = self._windows[source].starts(indices_N[mine])
            positions_NL = starts[:, None] + np.arange(length)
            ids_NL[mine] = self._splits[source].tokens[positions_NL]
            if documents_NL is not None:
                documents_NL[mine] = document_numbers(self._splits[source].offsets, positions_NL)
        if self._settings.shuffle_tokens:
            order_NL = np.argsort(self._noise(samples_N, length, 0x5B0F), axis=1)
            ids_NL = np.take_along_axis(ids_NL, order_NL, axis=1)
        inputs_NT, targets_NT = ids_NL[:, :-1], ids_NL[:, 1:]
        if self._settings.mask_random:
            inputs_NT = self._masked(samples_N, inputs_NT)
        if documents_NL is None:
            return Batch(inputs_NT, targets_NT, None, targets_NT.size)
        documents_NT, cut_NT = input_documents(documents_NL, separated=self._separated)
        if not self._separated:
            targets_NT = np.where(cut_NT, IGNORED, targets_NT.astype(np.int64))
        return Batch(inputs_NT, targets_NT, documents_NT, int(targets_NT.size - cut_NT.sum()))

    def n_targets(self, first: int, n: int) -> int:
        """How many targets samples first .. first + n have; seldom do they have to be looked at for that."""
        if self._separated or not self._settings.document_masking:
            return n * self._settings.context
        return self.batch(first, n).n_targets

    def _masked(
        self, samples_N: npt.NDArray[np.int64], inputs_NT: npt.NDArray[np.unsignedinteger]
    ) -> npt.NDArray[np.unsignedinteger]:
        """Replace some inputs by ids drawn from the vocabulary; their targets stay."""
        noise_NT = self._noise(samples_N, self._settings.context, 0x3A5C)
        # The upper half of each number decides whether, the lower half what instead.
        chosen_NT = (noise_NT >> np.uint64(32)) < np.uint64(self._settings.mask_random * 2**32)
        other_NT = (noise_NT & np.uint64(2**32 - 1)) % np.uint64(self._vocab_size)
        return np.where(chosen_NT, other_NT.astype(inputs_NT.dtype), inputs_NT)

    def _noise(self, samples_N: npt.NDArray[np.int64], length: int, purpose: int) -> npt.NDArray[np.uint64]:
        """Uniform 64-bit numbers (N, length) that depend on seed, sample and position alone."""
        round_key = np.uint64(key(self._settings.seed, purpose))
        rows_N = mix(np.bitwise_xor(samples_N.astype(np.uint64), round_key, dtype=np.uint64))
        return mix(np.add(rows_N[:, None], np.arange(length, dtype=np.uint64), dtype=np.uint64))


def document_numbers(
    offsets: npt.NDArray[np.uint64], positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The document that each position lies in; `offsets` (n_documents + 1) as a dataset has them."""
    return np.searchsorted(offsets, positions.astype(np.uint64), side="right")


def input_documents(
    numbers_NL: npt.NDArray[np.int64], *, separated: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The document (N, T) that each input of windows (N, L) belongs to, and whether its target lies in another.

    With an end of text between documents, an input belongs to the document of its target: a document is predicted
    from the end of text before it and its own tokens, as `generate` begins one. Where documents follow each other
    bare, what follows the last token of one is no target.
    """
    if separated:
        return numbers_NL[:, 1:], np.zeros_like(numbers_NL[:, 1:], np.bool_)
    return numbers_NL[:, :-1], numbers_NL[:, 1:] != numbers_NL[:, :-1]
