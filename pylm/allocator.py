"""How a training process on a CPU gets its memory: large tensors mapped each by itself, in huge pages.

Left alone, glibc maps what is larger than 32 MiB and takes the rest from its heap. There torch's aligned requests do
not fit the hole that a tensor of the same size has left, so that what is freed piles up: by up to a third of a step's
peak. A tensor mapped by itself goes back when it is freed, but has its page faults anew each time: a tenth more time
with pages of 4 KiB for a small model, nothing to be seen with those of 2 MiB (docs/accounting.md).
"""

import ctypes
import os

LARGE_BYTES = 8 << 20  # mapped by itself, and unmapped when it is freed
KEPT_BYTES = 128 << 20  # of free memory at the heap's end, for the smaller ones

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def map_large_tensors() -> None:
    """From now on; before torch is imported, which reads the variable at its first tensor.

    Where the C library is not glibc, or the kernel has no huge pages, nothing changes.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
