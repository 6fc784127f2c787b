"""From what a user asks about a training to its estimate: settings resolved as `train` does, this machine measured."""

from dataclasses import dataclass, replace

import torch

from pylm.accounting.devices import find_gpu
from pylm.accounting.estimate import Estimate
from pylm.accounting.memory import training_memory
from pylm.accounting.run import fitted, load_of, run_estimate
from pylm.auto import Facts, resolve
from pylm.config import Config, Given
from pylm.dataset import Dataset
from pylm.errors import ConfigError
from pylm.launch import resolve_dataset
from pylm.measure import available_bytes, cut, training_flops_per_s
from pylm.models.presets import find_preset
from pylm.precision import check_dtype

# What a GPU's driver and libraries take before the first tensor.
_GPU_CONTEXT_BYTES = 10**9


@dataclass(frozen=True)
class Question:
    """What `pylm estimate` is asked."""

    given: Given
    data: str | None = None
    device: str | None = None  # cpu, cuda, a GPU's name, or None for the best there is
    mfu: float = 0.4


def prospect(question: Question) -> tuple[Config, Estimate, str]:
    """Return the resolved config, the estimate, and in words where its speed comes from.

    Raises ConfigError or DataError for what cannot be.
    """
    if not 0 < question.mfu <= 1:
        raise ConfigError(f"--mfu must be above 0 and at most 1, found {question.mfu}")
    device = question.device or ("cuda" if torch.cuda.is_available() else "cpu")
    gpu = None if device in ("cpu", "cuda") else find_gpu(device)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has none; name a GPU, such as h100")
    available = available_bytes(device) if gpu is None else gpu.memory_bytes - _GPU_CONTEXT_BYTES
    config, _ = resolve(question.given, _facts(question, "cpu" if device == "cpu" else "cuda"))
    if "train.dtype" not in question.given and device != "cpu":
        config = replace(config, train=replace(config.train, dtype=_gpu_dtype(config)))
    if gpu is None:
        check_dtype(config.train.dtype, device)
    if "train.micro_batch" not in question.given:
        config = fitted(config, available)
    speed: float | None
    if gpu is None:
        speed, source = _measured(config, device, available)
    else:
        peak = gpu.peak(config.train.dtype)
        speed = peak * question.mfu
        source = f"{device} at {question.mfu:.0%} of {peak / 1e12:g} TFLOP/s, {config.train.dtype}"
    return config, run_estimate(config, available, speed), source


def _facts(question: Question, device: str) -> Facts:
    """The facts of a dataset; without one, the preset's vocabulary and data without end."""
    if question.data is not None:
        dataset = Dataset.open(resolve_dataset(question.data))
        return Facts(dataset.train.n_tokens, dataset.vocab_size, device, str(dataset.path), dataset.sha256)
    vocab_size = question.given.get("model.vocab_size")
    name = str(question.given.get("preset") or "auto")
    if vocab_size is None:
        if name == "auto":
            raise ConfigError("the auto preset goes by the data: give --data, or --set model.vocab_size=N")
        vocab_size = find_preset(name).model.vocab_size
    return Facts(10**15, int(vocab_size), device, "", "")


def _gpu_dtype(config: Config) -> str:
    """The dtype of a GPU's run that names none: the recipe's, or bfloat16."""
    recipe = None if config.preset == "auto" else find_preset(config.preset).recipe.dtype
    return recipe or "bfloat16"


def _measured(config: Config, device: str, available: int) -> tuple[float | None, str]:
    load = replace(load_of(config), micro_batch=1)
    needed = training_memory(cut(config.model, 2), load).total
    if needed > available:
        return None, f"not measured: two layers alone need {needed / 2**30:.1f} GiB"
    speed = training_flops_per_s(config.model, load_of(config), config.train.batch_size)
    return speed, f"measured here, {speed / 1e9:,.1f} GFLOP/s on {device}"
