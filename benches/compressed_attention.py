"""Compressed against full attention: `python benches/compressed_attention.py` prints a table and draws the picture.

One layer of S0's shape (16 heads of 64), from queries, keys and values to mixed values and back: rotation and pooling
are in, the linear layers, which both have alike, are not. Time is processor time on one thread, so that a busy machine
does not blur it; memory is the peak of another process above its size before the step, whose allocator gives back at
once what is freed. Linux with glibc only.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from pylm.models.attention import SelfAttention
from pylm.models.build import build_model
from pylm.models.presets import find_preset

LENGTHS = (1_024, 2_048, 4_096, 8_192)
PICTURE = Path(__file__).parents[1] / "docs" / "compressed-attention.png"


def main() -> None:
    """Measure both kinds at every length."""
    results: dict[str, list[dict[str, float]]] = {"full": [], "compressed": []}
    print(f"torch {torch.__version__}, one thread; one layer, 16 heads of 64, float32")
    print("      T   full: s, MiB    compressed: s, MiB    time    memory")
    for length in LENGTHS:
        for kind, rows in results.items():
            rows.append(measured("seconds", kind, length) | measured("mib", kind, length))
        full, ours = results["full"][-1], results["compressed"][-1]
        print(
            f"{length:7,}  {full['seconds']:7.3f} {full['mib']:6.0f}      {ours['seconds']:7.3f} {ours['mib']:6.0f}"
            f"        {ours['seconds'] / full['seconds']:5.2f}  {ours['mib'] / full['mib']:7.2f}",
            flush=True,
        )
    draw(results)


def measured(what: str, kind: str, length: int) -> dict[str, float]:
    """One figure of a training step, from a process of its own."""
    command = [sys.executable, __file__, what, kind, str(length)]
    # glibc then maps each tensor by itself, so that memory is what the tensors need.
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536"} if what == "mib" else {}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | settings)
    return {what: json.loads(result.stdout)}


def measure(what: str, kind: str, length: int) -> float:
    """Best of three training steps, or the peak memory of one."""
    torch.set_num_threads(1)
    config = dataclasses.replace(
        find_preset("compressed-373m").model, vocab_size=1, n_layers=1, attention=kind
    )
    attention: SelfAttention = build_model(config).blocks[0].attention
    attention.qkv = torch.nn.Identity()
    step(attention, 512)
    if what == "seconds":
        return min(step(attention, length) for _ in range(3))
    before = status_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak restarts from here
    step(attention, length)
    return (status_kib("VmHWM") - before) / 1_024


def step(attention: SelfAttention, length: int) -> float:
    """Forward and backward; seconds of processor time."""
    qkv = torch.randn(1, length, 3 * 1_024, requires_grad=True)
    grad = torch.randn(1, 16, length, 64)
    start = time.process_time()
    attention.mix(qkv).backward(grad)
    return time.process_time() - start


def status_kib(field: str) -> int:
    """A line of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def draw(results: dict[str, list[dict[str, float]]]) -> None:
    """Two panels over T: time and memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    panels = (("seconds", "seconds of one thread"), ("mib", "MiB above the process"))
    for axis, (key, label) in zip(axes, panels, strict=True):
        for kind, rows in results.items():
            axis.plot(LENGTHS, [row[key] for row in rows], marker="o", label=f"{kind} attention")
        axis.set(xlabel="positions", ylabel=label, ylim=(0, None), xticks=LENGTHS)
        axis.tick_params(axis="x", rotation=45)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle("One layer's training step, 16 heads of 64, float32")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    else:
        main()
