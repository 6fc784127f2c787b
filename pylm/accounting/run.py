"""The estimate of a run as its settings describe it, for `pylm train` to print, and to refuse what cannot fit."""

from dataclasses import replace

from pylm.accounting.estimate import GIB, Estimate, advice, check_fits, estimate, fitting_micro_batch
from pylm.accounting.memory import Load, training_memory
from pylm.config import Config
from pylm.progress import duration


def load_of(config: Config) -> Load:
    """Return what decides the memory of a step of this run."""
    train = config.train
    return Load(
        micro_batch=train.micro_batch,
        context=train.context,
        accumulates=train.accumulation > 1,
        activation_checkpointing=train.activation_checkpointing,
        early_update=train.early_update,
        optimizer=config.optimizer.name,
        device="cuda" if train.device.startswith("cuda") else "cpu",
        dtype=train.dtype,
        n_shards=train.n_processes if train.shard == "on" else 1,
    )


def shards(config: Config, available_bytes: int) -> Config:
    """Return the config with train.shard decided: a part of the model on each device where a copy does not fit."""
    if config.train.shard != "auto":
        return config
    copy = replace(config, train=replace(config.train, shard="off"))
    if config.train.n_processes == 1 or config.train.early_update or _fitting(copy, available_bytes):
        return copy
    return replace(config, train=replace(config.train, shard="on"))


def run_estimate(
    config: Config,
    available_bytes: int | None = None,
    flops_per_s: float | None = None,
) -> Estimate:
    """Return the estimate of a run; one that a budget in time ends counts no tokens."""
    train = config.train
    return estimate(
        config.model,
        load_of(config),
        batch_size=train.batch_size,
        n_tokens=train.steps * train.batch_size * train.context,
        available_bytes=available_bytes,
        flops_per_s=flops_per_s,
    )


def fitted(config: Config, available_bytes: int) -> Config:
    """Return the config with a micro-batch that fits, the given one where it does.

    Where nothing fits the config comes back as it was, for `check_run` to refuse.
    """
    most = _fitting(config, available_bytes)
    if most == 0 or most >= config.train.micro_batch:
        return config
    return replace(config, train=replace(config.train, micro_batch=most))


def what_fits(config: Config, room_bytes: int) -> str:
    """Return the settings that would fit after a step did not fit `room_bytes`, whatever its estimate said."""
    load = load_of(config)
    estimated = training_memory(config.model, load).total
    return advice(config.model, load, _share(config), min(room_bytes, int(0.9 * estimated)))


def check_run(config: Config, available_bytes: int, flops_per_s: float) -> str:
    """Return the run's estimate in one line: operations, the least time they take at `flops_per_s`, and memory.

    Raises:
        ConfigError: it does not fit `available_bytes`: the numbers, and the settings that would fit.
    """
    train = config.train
    memory = check_fits(config.model, load_of(config), _share(config), available_bytes)
    found = run_estimate(config, available_bytes, flops_per_s)
    parts = {"weights": memory.weights, "gradients": memory.gradients, "optimizer": memory.optimizer}
    parts |= {"activations": memory.activations, "loss": memory.loss}
    numbers = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
    whole = ""
    if train.steps and found.seconds is not None:  # a budget in time has no number of steps
        least = f"at least {duration(found.seconds)} at {flops_per_s / 1e9:,.0f} GFLOP/s"
        whole = f", {train.steps * found.step_flops:.4g} in {train.steps:,} steps, {least}"
    return (
        f"estimate: {found.step_flops:.4g} FLOPs a step{whole}; "
        f"memory {memory.total / GIB:.2f} GiB of {available_bytes / GIB:.2f} ({numbers})"
    )


def _fitting(config: Config, available_bytes: int) -> int:
    """Return the largest micro-batch that fits and divides a device's share of the batch; 0 when none does."""
    return fitting_micro_batch(config.model, load_of(config), _share(config), available_bytes)


def _share(config: Config) -> int:
    """Return how many sequences of a step one device takes."""
    return config.train.batch_size // config.train.n_processes
