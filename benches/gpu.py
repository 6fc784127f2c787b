"""Training steps of the presets on one GPU, by the real step: `python benches/gpu.py [ROW...] [--profile]`.

Tokens a second, operations a second as a part of the datasheet's and of a matrix product timed in the same run (a
multiply and an add are two, the head is among them, recomputation is not), and the peak of memory beside the
estimate's. bfloat16 under float32 weights, compiled blocks, batches of random ids that lie on the GPU; compiling and
the first steps are not timed. Medians of three rounds.
"""

import argparse
import gc
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch

from pylm.accounting.counts import training_flops
from pylm.accounting.devices import gpu_called
from pylm.accounting.memory import Load, training_memory
from pylm.compiling import compiling
from pylm.config import OptimizerConfig
from pylm.feed import StepBatch
from pylm.measure import matmul_flops_per_s
from pylm.models.build import build_model
from pylm.models.presets import find_preset
from pylm.optim import build_optimizers
from pylm.precision import Precision
from pylm.step import Stepper

DEVICE = torch.device("cuda")
GIB = 1 << 30
N_ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """A preset's step, and what is asked of it."""

    preset: str
    load: Load
    n_parts: int = 1  # of the preset's batch, each a micro-batch
    goal_mfu: float = 0.0  # of the datasheet's peak
    limit_gib: float = 0.0  # of memory


def on_gpu(micro_batch: int, context: int, dtype: str = "bfloat16", **more: bool) -> Load:
    """A step's load on this device."""
    return Load(micro_batch, context, device="cuda", dtype=dtype, **more)  # type: ignore[arg-type]


S2 = on_gpu(2, 2048, "float32", activation_checkpointing=True, early_update=True)
ROWS = {
    "138m": Row("llama-138m", on_gpu(64, 1024), goal_mfu=0.42),
    "350m": Row("llama-350m", on_gpu(64, 1024), goal_mfu=0.48),
    "700m": Row("llama-700m", on_gpu(32, 1024, accumulates=True), n_parts=2, goal_mfu=0.50),
    "S0": Row("compressed-373m", on_gpu(50, 64), limit_gib=9.0),
    "S0-200": Row("compressed-373m", on_gpu(200, 64)),
    "S0-8k": Row("compressed-373m", on_gpu(2, 8192)),
    "S2": Row("stacks-577m", S2, limit_gib=8.0),
}


def measure(name: str, row: Row, peak_flops: float, options: argparse.Namespace) -> None:
    """Print a row."""
    config, load = find_preset(row.preset).model, row.load
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = build_model(config, device=DEVICE)
    model.activation_checkpointing = load.activation_checkpointing
    optimizers = build_optimizers(model, OptimizerConfig())
    stepper = Stepper(
        model,
        optimizers,
        clip=0.0 if load.early_update else 1.0,
        precision=Precision(load.dtype, DEVICE),
        early_update=load.early_update,
    )
    batch_size = load.micro_batch * row.n_parts
    ids_BL = torch.randint(config.vocab_size, (batch_size, load.context + 1), device=DEVICE)
    n_tokens = batch_size * load.context
    batch = StepBatch((ids_BL[:, :-1], ids_BL[:, 1:]), load.micro_batch, n_tokens)
    began = time.perf_counter()
    with nullcontext() if options.eager else compiling(model):
        seconds(stepper, batch, 1)
    compiled_s = time.perf_counter() - began
    step_s = seconds(stepper, batch, 5) / 5
    n_steps = max(3, int(options.round / step_s))
    times = [seconds(stepper, batch, n_steps) / n_steps for _ in range(N_ROUNDS)]
    step_s = statistics.median(times)
    flops_per_s = training_flops(config, load.context, batch_size, "cuda") / step_s
    peak = torch.cuda.max_memory_allocated()
    gpu = gpu_called(torch.cuda.get_device_name())
    of_sheet = f"{flops_per_s / gpu.peak(load.dtype):6.1%}" if gpu else "     ?"
    print(
        f"{name:6} {load.micro_batch:3} x {load.context:<5} {load.dtype:9} {n_tokens / step_s:11,.0f} tokens/s "
        f"{step_s * 1e3:8.1f} ms  {flops_per_s / 1e12:5.0f} TFLOP/s {of_sheet} of the datasheet's "
        f"{flops_per_s / peak_flops:6.1%} of a product's  {peak / GIB:6.2f} GiB, estimate "
        f"{training_memory(config, load).total / GIB:6.2f}  first step {compiled_s:.0f} s"
        + (f"  goal {row.goal_mfu:.0%}" if row.goal_mfu else "")
        + (f"  limit {row.limit_gib:g} GiB" if row.limit_gib else ""),
        flush=True,
    )
    if options.profile:
        show_profile(stepper, batch)


def seconds(stepper: Stepper, batch: StepBatch, n_steps: int) -> float:
    """The time of so many steps."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(n_steps):
        stepper.step(batch)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def show_profile(stepper: Stepper, batch: StepBatch) -> None:
    """Print the kernels that take the most time of two steps."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    with recording(activities=[ProfilerActivity.CUDA]) as found:
        seconds(stepper, batch, 2)
    rows = sorted(found.key_averages(), key=lambda row: -row.self_device_time_total)
    whole = sum(row.self_device_time_total for row in rows)
    for row in rows[:22]:
        share, of_step_ms = row.self_device_time_total / whole, row.self_device_time_total / 2e3
        print(f"    {share:6.1%} {of_step_ms:8.2f} ms {row.count // 2:5} x  {row.key[:110]}")


def main() -> None:
    """Measure the rows named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--micro-batch", type=int, help="another one")
    parser.add_argument("--round", type=float, default=3.0, metavar="S", help="seconds of a round")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--profile", action="store_true", help="also the kernels of a step")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing is measured")
        return
    products = {dtype: matmul_flops_per_s(DEVICE, dtype, 0.5) for dtype in ("bfloat16", "float32")}
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; a product of 8,192 x 8,192: "
        + ", ".join(f"{speed / 1e12:.0f} TFLOP/s in {dtype}" for dtype, speed in products.items())
    )
    for name in options.rows:
        row = ROWS[name]
        if options.micro_batch:
            row = replace(row, load=replace(row.load, micro_batch=options.micro_batch))
        torch._dynamo.reset()
        try:
            measure(name, row, products[row.load.dtype], options)
        except torch.OutOfMemoryError as error:
            print(f"{name:6} does not fit: {str(error).splitlines()[0][:120]}")


if __name__ == "__main__":
    main()
