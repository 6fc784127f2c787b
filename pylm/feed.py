"""The batches of optimizer steps, made by a thread while the device works, and brought to it without waiting."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pylm.samples import Batch, Samples
from pylm.world import World

# Axes: B sequences, T positions.

N_AHEAD = 2  # steps
# Made at once: a few take as long as many, and the main thread waits for Python's lock meanwhile. One step of 12 x 64
# tokens at a time took 0.6 ms of a step of 10.
SAMPLES_AT_ONCE = 64


@dataclass(frozen=True)
class MicroBatch:
    """Sequences that are worked on together, on the device: int64 ids (B, T); targets below 0 are none."""

    inputs_BT: Tensor
    targets_BT: Tensor
    documents_BT: Tensor | None = None  # the document of each input, where attention is to stay in it


@dataclass(frozen=True)
class StepBatch:
    """A process's share of an optimizer step's samples on its device, in the narrow types they came in."""

    tensors: tuple[Tensor, ...]  # inputs, targets and perhaps documents, (batch, T)
    micro_batch: int
    n_targets: int  # of all processes: the step's loss is the mean over them

    @property
    def n_parts(self) -> int:
        """How many micro-batches there are."""
        return -(-len(self.tensors[0]) // self.micro_batch)

    def __iter__(self) -> Iterator[MicroBatch]:
        """Yield the micro-batches, each widened when it is needed."""
        for parts in zip(*(torch.split(tensor, self.micro_batch) for tensor in self.tensors), strict=True):
            yield MicroBatch(*(part.long() for part in parts))


class Feed:
    """Steps of `batch_size` samples from number `first` on, in order; of each the share of one process. `close` it."""

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        micro_batch: int,
        first: int,
        device: torch.device,
        world: World | None = None,
    ) -> None:
        self._samples, self._world = samples, world or World()
        self._batch_size, self._micro_batch = batch_size, micro_batch
        self._device = device
        self._ready: queue.Queue[tuple[list[Tensor], int] | BaseException] = queue.Queue(N_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._make, args=(first,), name="feed", daemon=True)
        self._thread.start()

    def take(self) -> StepBatch:
        """Return the next step's samples. Raises what went wrong in making them."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        tensors, n_targets = item
        there = tuple(tensor.to(self._device, non_blocking=True) for tensor in tensors)
        return StepBatch(there, self._micro_batch, n_targets)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        while self._thread.is_alive():
            try:  # it may be waiting for room
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _make(self, first: int) -> None:
        try:
            share = self._batch_size // self._world.size
            # Of several processes' shares only one step's lie side by side.
            n_steps = max(1, SAMPLES_AT_ONCE // share) if self._world.size == 1 else 1
            while True:
                batch = self._samples.batch(first + self._world.rank * share, n_steps * share)
                tensors = self._tensors(batch)
                for step in range(n_steps):
                    if self._closed.is_set():
                        return
                    of_step = [tensor[step * share : (step + 1) * share] for tensor in tensors]
                    self._ready.put((of_step, self._samples.n_targets(first, self._batch_size)))
                    first += self._batch_size
        except BaseException as error:  # raised where the batch is taken
            self._ready.put(error)

    def _tensors(self, batch: Batch) -> list[Tensor]:
        """The arrays as tensors, in memory that a GPU reads by itself."""
        arrays = [batch.inputs_NT, batch.targets_NT]
        if batch.documents_NT is not None:
            # Only where a document ends counts: small numbers will do.
            arrays.append((batch.documents_NT - batch.documents_NT[:, :1]).astype(np.int32))
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        return [tensor.pin_memory() for tensor in tensors] if self._device.type == "cuda" else tensors
