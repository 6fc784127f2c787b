"""The whole estimate of a training run, and whether it fits a device."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from pylm.accounting.counts import (
    forward_flops_by_part,
    n_parameters,
    parameters_by_part,
    training_flops,
)
from pylm.accounting.memory import Load, Memory, cache_bytes, checkpoint_bytes, training_memory
from pylm.errors import ConfigError
from pylm.models.config import ModelConfig

GIB = 1 << 30


@dataclass(frozen=True)
class Estimate:
    """What a run takes; bytes, operations and seconds. `fits` is None where the device's memory is not known."""

    parameters: dict[str, int]
    n_parameters: int
    forward_flops: dict[str, int]  # of one sequence of the context
    step_flops: int  # forward and backward of a whole batch
    load: Load
    batch_size: int
    memory: Memory
    cache_bytes: int  # keys and values of one sequence of the context, in generation
    checkpoint_bytes: int
    available_bytes: int | None
    largest_micro_batch: int | None  # that fits; 0 when none does
    n_tokens: int
    tokens_per_parameter: float
    seconds: float | None  # of the whole run; None where no speed is known

    @property
    def fits(self) -> bool | None:
        """Whether the step fits what is there."""
        return None if self.available_bytes is None else self.memory.total <= self.available_bytes

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return asdict(self) | {"fits": self.fits}


def estimate(
    config: ModelConfig,
    load: Load,
    *,
    batch_size: int,
    n_tokens: int,
    available_bytes: int | None = None,
    flops_per_s: float | None = None,
) -> Estimate:
    """Return what training takes.

    Args:
        config: the model.
        load: the micro-batch, context, optimizer and device.
        batch_size: sequences of one optimizer step.
        n_tokens: of the whole run.
        available_bytes: what the device has for it.
        flops_per_s: useful operations a second: measured, or a GPU's peak times the MFU.
    """
    step_flops = training_flops(config, load.context, batch_size, load.device)
    n_steps = n_tokens / (batch_size * load.context)
    n = n_parameters(config)
    return Estimate(
        parameters=parameters_by_part(config),
        n_parameters=n,
        forward_flops=forward_flops_by_part(config, load.context, device=load.device),
        step_flops=step_flops,
        load=load,
        batch_size=batch_size,
        memory=training_memory(config, load),
        cache_bytes=cache_bytes(config, 1, load.context),
        checkpoint_bytes=checkpoint_bytes(config, load.optimizer),
        available_bytes=available_bytes,
        largest_micro_batch=None
        if available_bytes is None
        else largest_micro_batch(config, load, available_bytes),
        n_tokens=n_tokens,
        tokens_per_parameter=n_tokens / n,
        seconds=None if flops_per_s is None else n_steps * step_flops / flops_per_s,
    )


def largest_micro_batch(config: ModelConfig, load: Load, available_bytes: int) -> int:
    """Return the largest micro-batch whose step fits, 0 when not even one sequence does."""

    def fits(micro_batch: int) -> bool:
        return _fits(config, replace(load, micro_batch=micro_batch), available_bytes)

    if not fits(1):
        return 0
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def fitting_micro_batch(config: ModelConfig, load: Load, batch_size: int, available_bytes: int) -> int:
    """Return the largest divisor of the batch whose step fits, 0 when not even one sequence does."""
    divisors = [d for d in range(1, batch_size + 1) if batch_size % d == 0]
    for micro_batch in reversed(divisors):
        part = replace(load, micro_batch=micro_batch, accumulates=micro_batch < batch_size)
        if _fits(config, part, available_bytes):
            return micro_batch
    return 0


def check_fits(config: ModelConfig, load: Load, batch_size: int, available_bytes: int) -> Memory:
    """Return the step's memory when it fits.

    Raises:
        ConfigError: it does not: the numbers, part by part, and the settings that would fit.
    """
    memory = training_memory(config, load)
    if memory.total <= available_bytes:
        return memory
    parts = {name: size for name, size in asdict(memory).items() if name != "total"}
    numbers = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
    raise ConfigError(
        f"training needs {memory.total / GIB:.2f} GiB, {available_bytes / GIB:.2f} GiB are there "
        f"(GiB: {numbers}): {advice(config, load, batch_size, available_bytes)}"
    )


def advice(config: ModelConfig, load: Load, batch_size: int, available_bytes: int) -> str:
    """Return the smallest change that fits.

    Tried in this order: a smaller micro-batch, recomputed activations, a shorter context, updates inside the backward
    pass (which need a batch without accumulation, AdamW and unclipped gradients).
    """
    for checkpointing in (load.activation_checkpointing, True):
        changed = replace(load, activation_checkpointing=checkpointing)
        if micro_batch := fitting_micro_batch(config, changed, batch_size, available_bytes):
            part = replace(changed, micro_batch=micro_batch, accumulates=micro_batch < batch_size)
            switch = _RECOMPUTE if checkpointing != load.activation_checkpointing else ""
            return f"--micro-batch {micro_batch}{switch} needs {_gib(config, part)}"
    least = replace(load, micro_batch=1, accumulates=batch_size > 1, activation_checkpointing=True)
    shorter = _shortened(config, least, available_bytes)
    if _fits(config, shorter, available_bytes):
        return f"--micro-batch 1{_RECOMPUTE} --context {shorter.context} needs {_gib(config, shorter)}"
    if load.dtype != "float16":  # whose loss is scaled
        early = replace(least, accumulates=False, early_update=True, optimizer="adamw")
        shorter = _shortened(config, early, available_bytes)
    if not _fits(config, shorter, available_bytes):
        return f"no batch or context is small enough ({_gib(config, shorter)} at the least): choose a smaller model"
    optimizer = "" if load.optimizer == "adamw" else " --optimizer adamw"
    context = "" if shorter.context == load.context else f" --context {shorter.context}"
    switches = f"{optimizer}{_EARLY_UPDATE}{_RECOMPUTE}{context}"
    return f"--batch-size 1 --micro-batch 1{switches} needs {_gib(config, shorter)}"


_RECOMPUTE = " --set train.activation_checkpointing=true"
_EARLY_UPDATE = " --set train.early_update=true --set optimizer.clip=0"


def _shortened(config: ModelConfig, load: Load, available_bytes: int) -> Load:
    """The load with its context halved until it fits, or is one token."""
    while load.context > 1 and not _fits(config, load, available_bytes):
        load = replace(load, context=load.context // 2)
    return load


def _fits(config: ModelConfig, load: Load, available_bytes: int) -> bool:
    return training_memory(config, load).total <= available_bytes


def _gib(config: ModelConfig, load: Load) -> str:
    return f"{training_memory(config, load).total / GIB:.2f} GiB"
