"""Tensors of which each process of a sharded model holds a part: the part, the whole, and back."""

from typing import Any

from torch import Tensor


def in_parts(tensor: Tensor) -> bool:
    """Whether a tensor is spread over processes."""
    return hasattr(tensor, "to_local")  # a DTensor, whose import takes nearly two seconds


def local(tensor: Any) -> Tensor:
    """The part of a tensor that this process holds, a view; of a plain one the tensor."""
    part: Tensor = tensor.to_local() if in_parts(tensor) else tensor
    return part


def whole(tensor: Any) -> Tensor:
    """All of a tensor; one in parts is gathered, for which every process must call this."""
    gathered: Tensor = tensor.full_tensor() if in_parts(tensor) else tensor
    return gathered


def placed_like(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor on the device of `like`, and cut as that one is where it has the same shape."""
    tensor = tensor.to(like.device)
    if not in_parts(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def joined_like(part: Tensor, like: Any) -> Tensor:
    """The whole of what this process holds `part` of, cut as `like` is; every process must call this."""
    if not in_parts(like):
        return part
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    ).full_tensor()
