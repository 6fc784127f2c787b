"""What GPUs by name can do and hold, from their makers' datasheets: dense, without sparsity."""

from dataclasses import dataclass

from pylm.errors import ConfigError


@dataclass(frozen=True)
class Gpu:
    """Peak operations a second and memory. `tflops_16` is of bf16 (fp16 where there is no bf16), summed in float32."""

    tflops_16: float
    tflops_32: float  # ordinary float32, not TF32
    memory_gb: float  # 10^9 bytes, as sold

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory."""
        return int(self.memory_gb * 1e9)

    def peak(self, dtype: str) -> float:
        """Return the peak in operations a second of a dtype of the arithmetic."""
        return 1e12 * (self.tflops_32 if dtype == "float32" else self.tflops_16)


GPUS = {
    "b200": Gpu(2250, 75, 180),
    "h200": Gpu(989, 67, 141),
    "h100": Gpu(989, 67, 80),
    "h100-pcie": Gpu(756, 51, 80),
    "a100-80gb": Gpu(312, 19.5, 80),
    "a100": Gpu(312, 19.5, 40),
    "l40s": Gpu(362, 91.6, 48),
    "l4": Gpu(121, 30.3, 24),
    "v100": Gpu(125, 15.7, 32),
    "t4": Gpu(65, 8.1, 16),
    "rtx-5090": Gpu(209.5, 104.8, 32),
    "rtx-4090": Gpu(165.2, 82.6, 24),
    "rtx-3090": Gpu(71, 35.6, 24),
}


def gpu_called(name: str) -> Gpu | None:
    """Return the GPU that a driver calls so, such as "NVIDIA A100-SXM4-80GB"; None for an unknown one."""
    words = set(name.lower().replace(" ", "-").split("-"))
    known = [gpu for gpu in GPUS if words.issuperset(gpu.split("-"))]
    return GPUS[max(known, key=len)] if known else None


def find_gpu(name: str) -> Gpu:
    """Return the GPU of that name; raises ConfigError naming all of them."""
    if name not in GPUS:
        raise ConfigError(f"device {name!r} is unknown; expected cpu, cuda or one of {', '.join(GPUS)}")
    return GPUS[name]
