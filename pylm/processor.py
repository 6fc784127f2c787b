"""What kind of processor this is, where a way to compute is chosen by it: by its kind, not by a measurement, for a
resumed run is to add in the same order.
"""

from functools import cache
from pathlib import Path


@cache
def is_amd() -> bool:
    """Whether AMD made it."""
    return "AuthenticAMD" in _facts()


@cache
def halves_avx512() -> bool:
    """Whether it is AMD's Zen 4, which takes two steps for 512 bits: there MKL loses a tenth to oneDNN, not half."""
    return any(line.split() == ["cpu", "family", ":", "25"] for line in _facts().splitlines())


def _facts() -> str:
    """What Linux says of it."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
