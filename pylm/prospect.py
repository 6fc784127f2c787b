"""From what a user asks about a training to its estimate: settings resolved as `train` does, this machine measured."""

from dataclasses import dataclass, replace

import torch

from pylm.accounting.devices import find_gpu
from pylm.accounting.estimate import Estimate, estimate
from pylm.accounting.memory import Load, training_memory
from pylm.auto import Facts, resolve
from pylm.config import Config, Given
from pylm.dataset import Dataset
from pylm.errors import ConfigError
from pylm.launch import resolve_dataset
from pylm.measure import available_bytes, training_flops_per_s
from pylm.models.presets import find_preset

# What a GPU's driver and libraries take before the first tensor.
_GPU_CONTEXT_BYTES = 10**9


@dataclass(frozen=True)
class Question:
    """What `pylm estimate` is asked."""

    given: Given
    data: str | None = None
    device: str | None = None  # cpu, cuda, a GPU's name, or None for the best there is
    dtype: str = "float32"
    mfu: float = 0.4


def prospect(question: Question) -> tuple[Config, Estimate, str]:
    """Return the resolved config, the estimate, and in words where its speed comes from.

    Raises ConfigError or DataError for what cannot be.
    """
    if not 0 < question.mfu <= 1:
        raise ConfigError(f"--mfu must be above 0 and at most 1, found {question.mfu}")
    device = question.device or ("cuda" if torch.cuda.is_available() else "cpu")
    config, _ = resolve(question.given, _facts(question, "cpu" if device == "cpu" else "cuda"))
    load = load_of(config, question.dtype)
    if device in ("cpu", "cuda"):
        available = available_bytes(device)
        speed, source = _measured(config, load, device, available)
    else:
        gpu = find_gpu(device)
        available = gpu.memory_bytes - _GPU_CONTEXT_BYTES
        speed = gpu.peak(question.dtype) * question.mfu
        source = (
            f"{device} at {question.mfu:.0%} of {gpu.peak(question.dtype) / 1e12:g} TFLOP/s, {question.dtype}"
        )
    n_tokens = config.train.steps * config.train.batch_size * config.train.context
    found = estimate(
        config.model,
        load,
        batch_size=config.train.batch_size,
        n_tokens=n_tokens,
        available_bytes=available,
        flops_per_s=speed,
    )
    return config, found, source


def load_of(config: Config, dtype: str = "float32") -> Load:
    """Return what decides the memory of a step of this run."""
    train = config.train
    return Load(
        micro_batch=train.micro_batch,
        context=train.context,
        accumulates=train.accumulation > 1,
        activation_checkpointing=train.activation_checkpointing,
        optimizer=config.optimizer.name,
        device="cpu" if train.device == "cpu" else "cuda",
        dtype=dtype,
    )


def _facts(question: Question, device: str) -> Facts:
    """The facts of a dataset; without one, the preset's vocabulary and data without end."""
    if question.data is not None:
        dataset = Dataset.open(resolve_dataset(question.data))
        return Facts(dataset.train.n_tokens, dataset.vocab_size, device, str(dataset.path), dataset.sha256)
    vocab_size = question.given.get("model.vocab_size")
    name = str(question.given.get("preset") or "auto")
    if vocab_size is None:
        if name == "auto":
            raise ConfigError(
                "the auto preset goes by the data: give --data, or a vocabulary by --set model.vocab_size=N"
            )
        vocab_size = find_preset(name).model.vocab_size
    return Facts(10**15, int(vocab_size), device, "", "")


def _measured(config: Config, load: Load, device: str, available: int) -> tuple[float | None, str]:
    layers = "n_stacks" if config.model.family == "stacks" else "n_layers"
    two = replace(config.model, **{layers: 2})  # type: ignore[arg-type]  # an int by name
    smallest = replace(load, micro_batch=1)
    needed = training_memory(two, smallest).total
    if needed > available:
        return None, f"not measured: two layers alone need {needed / 2**30:.1f} GiB"
    speed = training_flops_per_s(config.model, load, config.train.batch_size)
    return speed, f"measured here, {speed / 1e9:,.1f} GFLOP/s on {device}"
