"""One model on one device, a copy on each of several (DDP), or a part on each (FSDP2), behind the same few calls."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pylm.models.build import Decoder
from pylm.world import World

T = TypeVar("T")


class _Use(nn.Module):
    """Any function of the model as a module's forward, so that DDP and FSDP see every use of the weights.

    They hook into `forward`; the loss head uses the matrix itself, and samples a cache.
    """

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., T], *arguments: Any) -> T:
        """function(model, *arguments)."""
        return function(self.model, *arguments)


class Parallel:
    """A model in `world`. With `sharded` its parameters become DTensors, so build the optimizers after this."""

    def __init__(
        self,
        model: Decoder,
        world: World | None = None,
        device: torch.device | None = None,
        *,
        sharded: bool = False,
        early_update: bool = False,
    ) -> None:
        """A model that is to be `sharded` over several processes is brought to `device` here, block by block.

        With `early_update` the gradients are not summed here: each is where it is used (`pylm.early_update`).
        """
        self.model, self.world = model, world or World()
        self.sharded = sharded and self.world.size > 1
        self._use: Any = _Use(model)
        if self.sharded:
            self._reshard = _shard(self._use, model, device or torch.device("cpu"))
        elif self.world.size > 1 and not early_update:
            from torch.nn.parallel import DistributedDataParallel

            self._use = DistributedDataParallel(self._use, gradient_as_bucket_view=True)
            # DDP's own hook takes the mean over processes; a step's loss is divided once, by all its targets.
            self._use.register_comm_hook(None, _summed)

    def train_on(self, function: Callable[..., T], *arguments: Any) -> T:
        """function(model, *arguments), whose result a backward pass may start from."""
        result: T = self._use(function, *arguments)
        return result

    @torch.no_grad()
    def look(self, function: Callable[..., T], *arguments: Any) -> T:
        """function(model, *arguments) without gradients; of a sharded model every process must call it."""
        if not self.sharded:
            return function(self.model, *arguments)
        result: T = self._use(function, *arguments)
        self._reshard()  # nothing else drops the weights that are in no block
        return result

    @contextmanager
    def adding(self, last: bool) -> Iterator[None]:
        """Around the passes of a micro-batch: copies exchange gradients after the `last` of a step alone."""
        if last or not hasattr(self._use, "no_sync"):
            yield  # parts add up what they exchange: whole gradients would not fit
        else:
            with self._use.no_sync():
                yield

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """The norm of all gradients together; of a sharded model `gradients` are this process's parts."""
        norm = torch.nn.utils.get_total_norm(gradients)
        return self.world.sum(norm.square()).sqrt() if self.sharded else norm


def _shard(use: nn.Module, model: Decoder, device: torch.device) -> Callable[[], None]:
    """Cut each block's parameters and the rest's along their first axis; a block is whole while it works.

    Returns what cuts the rest again: it stays whole from a forward pass to its backward pass.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # The stacks' output is one, of their last layer's; nothing of ours is written into a block's output.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for module in (*model.blocks, use):
        cut = fully_shard(module, mesh=mesh)
        cut.set_gradient_divide_factor(1.0)  # the sum, as above,
        cut.set_force_sum_reduction_for_comms(True)  # and by an operation that gloo has too
    reshard: Callable[[], None] = cut.reshard
    return reshard


def _summed(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])
