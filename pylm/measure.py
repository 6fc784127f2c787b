"""What this machine has and does: the memory that is free, and how fast a model trains on it, measured in seconds."""

import resource
import time
from dataclasses import replace
from pathlib import Path

import torch

from pylm.accounting.counts import training_flops
from pylm.accounting.memory import Load
from pylm.config import OptimizerConfig
from pylm.loss import summed_cross_entropy
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.models.products import times_transposed
from pylm.optim import build_optimizers

N_REPEATS = 3  # timed, after one that is not


def available_bytes(device: str) -> int:
    """Return the bytes of memory that a new process can take on this machine's `device` now."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        return int(free)
    limits = [_meminfo("MemAvailable")]
    # A container's own limit, in version 2 and version 1 of control groups.
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if Path(limit).is_file() and (text := Path(limit).read_text().strip()).isdigit():
            limits.append(int(text) - int(Path(used).read_text()))
    return min(limits)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a device's refusal of memory; that of a CPU is a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def held_bytes(device: torch.device) -> int:
    """Return the bytes that this process holds of a device's memory now; of a machine's, what is resident."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(
        resource.RUSAGE_SELF
    ).ru_maxrss  # in bytes on macOS: its peak, for want of the present
    return int(peak)


def matmul_flops_per_s(device: torch.device, dtype: str, limit_s: float = 0.05) -> float:
    """Measure operations a second of a matrix product, 2 for a multiply and add: the most that a model can reach.

    The best of those within `limit_s`, after a first one; 1,024 rows and columns on a CPU, 8,192 on a GPU. Of random
    numbers: a GPU multiplies equal ones faster than any model could.
    """
    n = 1_024 if device.type == "cpu" else 8_192
    a_NN = torch.empty(n, n, dtype=getattr(torch, dtype), device=device).uniform_(
        -1, 1, generator=torch.Generator(device).manual_seed(0)
    )
    times: list[float] = []
    began = _now(device)
    while len(times) < 2 or _now(device) - began < limit_s:
        start = _now(device)
        times_transposed(a_NN, a_NN)
        times.append(_now(device) - start)
    return 2 * n**3 / min(times[1:])


def training_flops_per_s(config: ModelConfig, load: Load, batch_size: int, limit_s: float = 10.0) -> float:
    """Measure useful operations a second of training this model on this device.

    A step costs a part that every layer takes and a part that is there once (the head, the embedding). Both come
    from timing the model with one and with two layers, so that a model that would take minutes, or does not
    even fit, is measured in seconds.

    Args:
        config: the model; a "stacks" model is cut to one and two stacks.
        load: micro-batch, context, optimizer and device. Long ones are shortened to about `limit_s` in all.
        batch_size: sequences of an optimizer step, over which its cost is spread.
        limit_s: rough limit of the whole measurement.
    """
    one, two = cut(config, 1), cut(config, 2)
    step_flops = training_flops(config, load.context, batch_size, load.device)
    load = _shortened(two, load, limit_s)
    step_s, update_s = zip(_step_s(one, load), _step_s(two, load), strict=True)
    n_more = (config.n_stacks if config.family == "stacks" else config.n_layers) - 1
    whole_step_s, whole_update_s = (
        max(first, first + n_more * (second - first)) for first, second in (step_s, update_s)
    )
    n_parts = step_flops / training_flops(config, load.context, load.micro_batch, load.device)
    return step_flops / (n_parts * whole_step_s + whole_update_s)


def cut(config: ModelConfig, n: int) -> ModelConfig:
    """Return the config with n layers, or n stacks."""
    return replace(config, n_stacks=n) if config.family == "stacks" else replace(config, n_layers=n)


def _shortened(config: ModelConfig, load: Load, limit_s: float) -> Load:
    """Fewer sequences, then fewer tokens, until both models and their repeats stay below the limit."""
    # 50 GFLOP/s is what a slow machine does; a GPU has no need to be spared.
    budget = limit_s * (50e9 if load.device == "cpu" else 1e13) / (2 * (1 + N_REPEATS))
    while load.micro_batch > 1 and training_flops(config, load.context, load.micro_batch) > budget:
        load = replace(load, micro_batch=load.micro_batch // 2)
    while load.context > 64 and training_flops(config, load.context) > budget:
        load = replace(load, context=load.context // 2)
    return load


def _step_s(config: ModelConfig, load: Load) -> tuple[float, float]:
    """Seconds of forward and backward, and of the optimizer's update: the shortest of some, after a first one."""
    device = torch.device(load.device)
    model = build_model(config, device=device)
    model.activation_checkpointing = load.activation_checkpointing
    optimizers = build_optimizers(model, OptimizerConfig(name=load.optimizer), load.dtype)
    ids_BL = torch.randint(config.vocab_size, (load.micro_batch, load.context + 1), device=device)
    passes, updates = [], []
    for _ in range(1 + N_REPEATS):
        began = _now(device)
        with torch.autocast(device.type, getattr(torch, load.dtype), enabled=load.dtype != "float32"):
            loss = summed_cross_entropy(model, ids_BL[:, :-1], ids_BL[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        middle = _now(device)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        passes.append(middle - began)
        updates.append(_now(device) - middle)
    return min(passes[1:]), min(updates[1:])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _meminfo(name: str) -> int:
    """Bytes of a line of /proc/meminfo; where there is none (macOS), all of the machine's memory."""
    import os

    path = Path("/proc/meminfo")
    if not path.is_file():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    line = next(line for line in path.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
