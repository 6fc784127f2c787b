"""Tokens a second of training, side by side: `python benches/train.py [--device D] [--dtype T] [SHAPE...]`.

Contenders of the same layers, width, heads, vocabulary, context, batch and precision, with fused AdamW, in one process:
ours; a model of nanoGPT's shape written here; Llama of transformers, if that is installed; each plain and compiled.
Each figure is the median of three rounds, in each of which the contenders take turns of half a second; compiling and
first steps are not counted. On a CPU all of them get large tensors in huge pages and a frozen heap of Python, as `pylm
train` has them.
"""

import argparse
import copy
import gc
import statistics
import time
from functools import partial

import torch
from training_peers import LlamaLoss, Peer, Shape, Step, llama, peer_step

from pylm.accounting.counts import training_flops
from pylm.allocator import map_large_tensors
from pylm.config import OptimizerConfig
from pylm.errors import ConfigError
from pylm.feed import StepBatch
from pylm.measure import matmul_flops_per_s
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.optim import build_optimizers
from pylm.precision import Precision, check_dtype
from pylm.step import Stepper

N_ROUNDS, ROUND_S = 3, 4.0
TURNS = 8  # of a round: what else the machine does then slows all of them
now = time.perf_counter


SHAPES = {
    "4x128": Shape(4, 128, 4, 65, 64, 12),  # nanoGPT's shape for a CPU
    "6x384": Shape(6, 384, 6, 32_000, 256, 4),
    "138m": Shape(12, 768, 12, 32_000, 1_024, 16),
    "350m": Shape(24, 1_024, 16, 32_000, 1_024, 8),
    "700m": Shape(32, 1_280, 20, 32_000, 1_024, 4),
}
TARGETS = {("4x128", "bfloat16"): 1.3, ("4x128", "float32"): 1.15, ("6x384", "bfloat16"): 1.2}


def ours(shape: Shape, batch: StepBatch, device: torch.device, dtype: str, compiled: bool) -> Step:
    """Our step with the model of its `auto` preset at this shape."""
    config = ModelConfig(
        vocab_size=shape.vocab_size,
        max_context=shape.context,
        n_layers=shape.n_layers,
        width=shape.width,
        n_heads=shape.n_heads,
        mlp="relu2",
        norm_kind="layer",
        norm_gains="none",
        qk_norm=True,
    )
    model = build_model(config, device=device)
    if compiled:
        for block in model.blocks:
            block.compile(dynamic=False)
    optimizers = build_optimizers(model, OptimizerConfig(name="adamw"))
    stepper = Stepper(model, optimizers, clip=1.0, precision=Precision(dtype, device))
    return lambda: stepper.step(batch)


def contenders(shape: Shape, device: torch.device, dtype: str, compile_ours: bool) -> dict[str, Step]:
    """Steps by name; one that cannot be had is named, with the reason."""
    ids_BL = torch.randint(shape.vocab_size, (shape.batch_size, shape.context + 1), device=device)
    inputs_BT, targets_BT = ids_BL[:, :-1].contiguous(), ids_BL[:, 1:].contiguous()
    batch = StepBatch((inputs_BT, targets_BT), shape.batch_size, targets_BT.numel())
    found = {"pylm": ours(shape, batch, device, dtype, compiled=False)}
    if compile_ours:
        found["pylm, compiled"] = ours(shape, batch, device, dtype, compiled=True)
    peer = Peer(shape).to(device)
    found["nanoGPT's shape"] = peer_step(peer, lambda: peer(inputs_BT, targets_BT), device, dtype)
    twin = Peer(shape).to(device)
    fast = torch.compile(twin)
    found["nanoGPT's shape, compiled"] = peer_step(twin, lambda: fast(inputs_BT, targets_BT), device, dtype)
    if (theirs := llama(shape)) is not None:
        for label, compiled in (("Llama of transformers", False), ("Llama, compiled", True)):
            model = LlamaLoss(copy.deepcopy(theirs)).to(device)
            called = torch.compile(model) if compiled else model
            found[label] = peer_step(model, partial(called, inputs_BT, targets_BT), device, dtype)
    return found


def seconds(step: Step, n_steps: int, device: torch.device) -> float:
    """The time of so many steps."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = now()
    for _ in range(n_steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return now() - began


def one_round(
    steps: dict[str, Step], counts: dict[str, int], n_tokens: int, device: torch.device
) -> dict[str, float]:
    """Tokens a second of each, over all of its turns of so many steps."""
    times = dict.fromkeys(steps, 0.0)
    for _ in range(TURNS):
        for label, step in steps.items():
            times[label] += seconds(step, counts[label], device)
    return {label: TURNS * counts[label] * n_tokens / times[label] for label in steps}


def compare(name: str, device: torch.device, dtype: str, compile_ours: bool, round_s: float) -> None:
    """Print a table for one shape."""
    shape = SHAPES[name]
    n_tokens = shape.batch_size * shape.context
    print(f"{name}: {shape}, {dtype} on {device}, {torch.get_num_threads()} threads")
    try:
        if said := check_dtype(dtype, str(device)):
            print(said)
    except ConfigError as error:
        print(f"not run: {error}\n")
        return
    steps = contenders(shape, device, dtype, compile_ours)
    for step in steps.values():
        seconds(step, 3, device)
    gc.collect()
    gc.freeze()  # as `pylm train` has it: collections need not look through what stays
    turn_s = round_s / TURNS
    counts = {label: max(2, int(turn_s / (seconds(step, 2, device) / 2))) for label, step in steps.items()}
    rounds = [one_round(steps, counts, n_tokens, device) for _ in range(N_ROUNDS)]
    speeds = {label: statistics.median(one[label] for one in rounds) for label in steps}
    peak = matmul_flops_per_s(device, dtype, 0.5)
    flops = training_flops(ModelConfig(
        vocab_size=shape.vocab_size, max_context=shape.context, n_layers=shape.n_layers, width=shape.width,
        n_heads=shape.n_heads, mlp="relu2",
    ), shape.context) / shape.context  # fmt: skip
    mine = max(speed for label, speed in speeds.items() if label.startswith("pylm"))
    for label, speed in speeds.items():
        print(
            f"  {label:26} {speed:12,.0f} tokens/s  {n_tokens / speed * 1e3:8.1f} ms a step  "
            f"{speed * flops / peak:4.0%} of a matrix product  pylm is {mine / speed:.2f} times as fast"
        )
    best = max(speed for label, speed in speeds.items() if not label.startswith("pylm"))
    goal = f", the goal {TARGETS[name, dtype]}" if (name, dtype) in TARGETS else ""

    print(f"  against the best of the others: {mine / best:.2f}{goal}\n")


def main() -> None:
    """Read the options and print a table a shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=["4x128", "6x384"], help=", ".join(SHAPES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="pylm also compiled")
    parser.add_argument(
        "--busy", action="store_true", help="for a busy machine: one thread, and its processor's time"
    )
    parser.add_argument("--round", type=float, default=ROUND_S, metavar="S", help="seconds of a round")
    options = parser.parse_args()
    map_large_tensors()  # before the first tensor
    global now
    if options.busy:
        now = time.process_time
        torch.set_num_threads(1)
    for name in options.shapes:
        for dtype in options.dtype:
            compare(name, torch.device(options.device), dtype, options.compile, options.round)


if __name__ == "__main__":
    main()
