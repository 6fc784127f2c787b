"""The processes that train together, as torchrun starts them: who this one is, and what they agree on.

The first process decides, writes and speaks; the others follow. What they tell each other beside tensors is JSON:
torch's own exchange of objects pickles them.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pylm.errors import ConfigError, PylmError, RunError, SaidElsewhere, TrainingError

T = TypeVar("T")

# A process that dies closes its connections, which the others notice in the same step. One that hangs, or a machine
# that vanishes without a word, ends the run after this time; the first process's longest save must be shorter.
TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """One process of `size`; by itself there is nothing to exchange, and every method returns at once."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes of this machine
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process decides, writes and speaks."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process among those called `name`. Raises ConfigError or RunError where it has none."""
        device = torch.device(name)
        if self.size == 1 or device.type != "cuda":
            return device
        if device.index is not None:
            raise ConfigError(
                f"--device {name}: torchrun gives each process a device of its own: --device cuda"
            )
        if self.local_size > torch.cuda.device_count():
            raise RunError(
                f"{self.local_size} processes on this machine, which has {torch.cuda.device_count()} GPUs: "
                f"torchrun --nproc-per-node={torch.cuda.device_count()}"
            )
        return torch.device("cuda", self.local_rank)

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over all processes, and return it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, *numbers: float) -> list[float]:
        """The largest of each number over all processes."""
        if self.size == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        found: list[float] = values.tolist()
        return found

    def decided(self, decide: Callable[[], T]) -> T:
        """What `decide` returns in the first process, a JSON value, in all of them; where it fails they all end."""
        if self.size == 1:
            return decide()
        if not self.is_first:
            message = json.loads(self._share_bytes(b""))
            if "exit_code" in message:
                raise SaidElsewhere(message["exit_code"])
            value: T = message["value"]
            return value
        try:
            value = decide()
        except PylmError as error:
            self._share_bytes(json.dumps({"exit_code": error.exit_code}).encode())
            raise
        self._share_bytes(json.dumps({"value": value}).encode())
        return value

    def together(self, do: Callable[[], T]) -> T:
        """What `do` returns here; where it fails in some processes, the first of those says so and all end."""
        try:
            result, failure = do(), None
        except PylmError as error:
            failure = error
        (urgency,) = self.largest(0 if failure is None else self.size - self.rank)
        if urgency == 0:
            return result
        if failure is not None and urgency == self.size - self.rank:
            raise failure
        raise SaidElsewhere(1)

    def everywhere(self, error: PylmError) -> PylmError:
        """The error that every process has come to, to be raised: only the first one's says something."""
        return error if self.is_first else SaidElsewhere(error.exit_code)

    def tensors(
        self, held: Iterator[tuple[str, Tensor]] | None, device: torch.device
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the first process's named tensors in all of them, one after another, on `device`."""
        if self.size == 1:
            yield from held or ()
            return
        while True:
            found = next(held, None) if held is not None and self.is_first else None
            item = self.decided(partial(_described, found))
            if item is None:
                return
            name, dtype, shape = item
            empty = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
            tensor = empty if found is None else empty.copy_(found[1])
            dist.broadcast(tensor, 0)
            yield name, tensor

    @contextmanager
    def losses_explained(self, advice: str) -> Iterator[None]:
        """Turn the failure to reach another process into one line that ends with `advice`."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_lost(error):
                raise
            lost = TrainingError(
                f"process {self.rank} of {self.size} lost another one ({_reason(error)}), which died or hangs: {advice}"
            )
            raise self.everywhere(lost) from None

    def _share_bytes(self, content: bytes) -> bytes:
        size = torch.tensor(len(content))
        dist.broadcast(size, 0)
        buffer = torch.empty(int(size), dtype=torch.uint8)
        if self.is_first:
            buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        dist.broadcast(buffer, 0)
        return buffer.numpy().tobytes()


def n_processes() -> int:
    """How many processes torchrun has started, by its environment; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_first() -> bool:
    """Whether this process is the one that speaks, by torchrun's environment."""
    return n_processes() == 1 or os.environ["RANK"] == "0"


@contextmanager
def joined() -> Iterator[World]:
    """Inside, this process is one of those that torchrun's environment names, if it does.

    Tensors of a GPU travel by NCCL, all others by gloo. An error of this process alone leaves the others by its end:
    they notice closed connections.
    """
    if n_processes() == 1:
        yield World()
        return
    try:
        variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        world = World(*(int(os.environ[name]) for name in variables))
    except (KeyError, ValueError) as error:
        raise RunError(
            f"RANK is set as torchrun does, but not all it sets: {error}: start with torchrun"
        ) from None
    with world.losses_explained("start again when all processes run"):
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
        yield world
    # Not after an error: it would wait for processes that are gone.
    dist.destroy_process_group()


def _described(found: tuple[str, Tensor] | None) -> tuple[str, str, list[int]] | None:
    """A named tensor's name, dtype and shape."""
    return (
        None
        if found is None
        else (found[0], str(found[1].dtype).removeprefix("torch."), list(found[1].shape))
    )


def _is_lost(error: RuntimeError) -> bool:
    """Whether an error means that another process cannot be reached: gloo's are plain RuntimeErrors."""
    words = ("by peer", "timed out", "timeout", "connection refused", "broken pipe")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def _reason(error: RuntimeError) -> str:
    """The end of a message such as `[.../pair.cc:534] Connection closed by peer [127.0.0.1]:37313`."""
    first_line = str(error).strip().partition("\n")[0]
    return first_line.rpartition("] ")[2][:100] if first_line.startswith("[") else first_line[:100]
