"""The extension's kernels for training on a CPU (rust_bpe/src/kernels): where they are the way, and their arrays."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylm import _bpe

# What the extension takes a number as: numpy has no bfloat16.
_BITS = {torch.float32: torch.float32, torch.bfloat16: torch.uint16}


def can_take(x: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether kernels are the fast way here for a tensor like this, of its own dtype or of that one."""
    return x.device.type == "cpu" and (dtype or x.dtype) in _BITS and _are_fast()


def as_array(x: Tensor) -> NDArray[Any]:
    """The memory of a contiguous tensor of a dtype that kernels take, as an array."""
    x = x.detach()
    return x.numpy() if x.dtype == torch.float32 else x.view(_BITS[x.dtype]).numpy()


def as_view(parameter: Tensor) -> NDArray[Any]:
    """The same of a parameter in float32, while that is held: what `numpy` was called on can never be resized, and FSDP
    empties parameters so. By its address, in a fifth of the time that DLPack takes.
    """
    memory: Any = _floats(parameter.numel()).from_address(parameter.data_ptr())
    return np.frombuffer(memory, np.float32).reshape(parameter.shape)


@cache
def _floats(n: int) -> type[ctypes.Array[ctypes.c_float]]:
    return ctypes.c_float * n


@cache
def have_products() -> bool:
    """Whether the extension may multiply by the library that torch does, MKL."""
    return _bpe.adopt_products(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")


@cache
def _are_fast() -> bool:
    """Whether the processor has what makes them fast. They then take torch's threads, where it brings GNU's OpenMP."""
    if not _bpe.has_fast_kernels():
        return False
    package = Path(torch.__file__).parent
    for folder in (package / "lib", package.with_name("torch.libs")):
        for library in folder.glob("libgomp*.so*"):
            _bpe.adopt_threads(library)
    return True
