"""The numbers a step computes with: float32, or bfloat16 and float16 under float32 weights; refused where they crawl.

A processor without instructions for bfloat16 is 40 to 500 times slower in it than in float32. So what a processor says
it has is read first, and believed only after its matrix product has been timed.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from pylm.errors import ConfigError

PROBE_S = 0.05
# x86: AVX512-BF16 or AMX; ARM calls it bf16.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})

FIRST_SCALE = 2.0**16  # of float16's loss
GROWTH_STEPS = 2_000  # finite steps, after which the scale is doubled


def default_dtype(device: str, recipe: str | None = None) -> str:
    """The dtype of a run that names none: the recipe's on a GPU, or bfloat16; float32 elsewhere."""
    if not device.startswith("cuda"):
        return "float32"
    if recipe is not None and recipe != "bfloat16":
        return recipe
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def check_dtype(dtype: str, device: str) -> str | None:
    """Return what there is to say about this dtype on this device. Raises ConfigError where it should not be used."""
    kind = device.partition(":")[0]
    if dtype == "float32":
        return None
    if dtype == "float16" and kind != "cuda":
        raise ConfigError(f"train.dtype float16 needs a GPU, the device is {device}: leave --dtype out")
    if dtype == "bfloat16" and kind == "cuda":
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ConfigError(
                f"train.dtype bfloat16: {torch.cuda.get_device_name()} has none: --dtype float16"
            )
        return None
    if dtype == "bfloat16" and kind == "cpu":
        return _check_processor()
    if dtype == "bfloat16":
        raise ConfigError(f"train.dtype bfloat16 is not supported on {device}: leave --dtype out")
    return None


def _check_processor() -> str:
    if not processor_has_bfloat16():
        raise ConfigError(
            "train.dtype bfloat16: this processor has no instructions for it (AVX512-BF16 or AMX) and would be "
            "40 to 500 times slower: leave --dtype out"
        )
    ratio = _matmul_s(torch.float32) / _matmul_s(torch.bfloat16)
    if ratio < 1:
        raise ConfigError(
            f"train.dtype bfloat16: a matrix product on this processor is {1 / ratio:.1f} times slower than in "
            "float32: leave --dtype out"
        )
    return f"bfloat16: a matrix product on this processor is {ratio:.1f} times as fast as in float32"


def processor_has_bfloat16() -> bool:
    """Whether /proc/cpuinfo names the instructions; where there is no such file, no."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    named = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not BFLOAT16_FLAGS.isdisjoint(named.split())


def _matmul_s(dtype: torch.dtype) -> float:
    """Seconds of a product of 512 x 512 matrices: the shortest within half of PROBE_S, after a first one."""
    a = torch.ones(512, 512, dtype=dtype)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - began < PROBE_S / 2:
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return min(times[1:])


class Precision:
    """A dtype on a device: the context to compute the loss in, and float16's scale of the loss."""

    def __init__(
        self, dtype: str, device: torch.device, scale: float | None = None, finite_steps: int = 0
    ) -> None:
        """`scale` and `finite_steps` are where a resumed run's scale stands."""
        self._dtype = getattr(torch, dtype)
        self._device = device
        self.scale = torch.tensor(scale or FIRST_SCALE, device=device) if dtype == "float16" else None
        self.finite_steps = torch.tensor(float(finite_steps), device=device)

    def context(self) -> AbstractContextManager[object]:
        """Autocast, where the dtype is not float32."""
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, self._dtype)

    def scaled(self, loss: Tensor) -> Tensor:
        """Scale the loss, so that small gradients are not lost in float16; who uses them divides by `scale`."""
        return loss if self.scale is None else loss * self.scale

    def update(self, unusable: Tensor) -> None:
        """Halve the scale after a step that was not finite (1.0), double it after GROWTH_STEPS that were."""
        if self.scale is None:
            return
        finite = (self.finite_steps + 1) * (1 - unusable)
        grows = finite >= GROWTH_STEPS
        self.finite_steps = torch.where(grows, 0.0, finite)
        factor = torch.where(unusable > 0, 0.5, torch.where(grows, 2.0, 1.0))
        self.scale = (self.scale * factor).clamp(2.0**-14, 2.0**24)

    def read(self) -> tuple[float | None, int]:
        """The scale and the finite steps since it changed, for a checkpoint."""
        return (None, 0) if self.scale is None else (self.scale.item(), int(self.finite_steps.item()))
