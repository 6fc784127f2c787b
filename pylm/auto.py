"""What the user left open, chosen by tables of data size and device; each choice is printed and stored with the run."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pylm.accounting.counts import training_flops
from pylm.config import LENGTHS, Config, Given, OptimizerConfig, Value, from_flat
from pylm.errors import ConfigError
from pylm.models.config import ModelConfig
from pylm.models.presets import find_preset

MIN_STEPS = 2_000
MAX_EPOCHS = 4  # repeating data more often hardly lowers the loss (Muennighoff et al. 2023)
TOKENS_PER_PARAMETER = 20  # compute-optimal training (Hoffmann et al. 2022)
N_EVALUATIONS = 20
GPU_TOKENS = 65_536  # of a micro-batch, at most


@dataclass(frozen=True)
class Facts:
    """What the choices depend on."""

    n_train_tokens: int
    vocab_size: int
    device: str  # cpu, cuda, mps
    dataset_path: str
    dataset_sha256: str
    n_processes: int = 1


@dataclass(frozen=True)
class _Size:
    """A row of the `auto` preset: the shape, batch and rate for data below `below_tokens`."""

    below_tokens: float
    n_layers: int
    width: int
    n_heads: int
    context: int
    batch_size: int
    lr: float  # AdamW's, of the head; it falls about as one over the width
    muon_lr: float
    muon_momentum: float  # large batches bear more


# A pre-norm transformer whose size fits what the device can train on the data in minutes (CPU) or an hour (one GPU).
AUTO_SIZES: dict[str, tuple[_Size, ...]] = {
    "cpu": (
        _Size(3e7, 4, 128, 2, 128, 16, 2e-2, 0.04, 0.85),
        _Size(math.inf, 6, 384, 6, 256, 16, 8e-3, 0.03, 0.9),
    ),
    "cuda": (
        _Size(1e6, 6, 256, 4, 256, 32, 1e-2, 0.03, 0.9),
        _Size(3e7, 8, 512, 8, 512, 64, 6e-3, 0.02, 0.95),
        _Size(math.inf, 12, 768, 12, 1024, 128, 4e-3, 0.02, 0.95),
    ),
}


# Where a preset's recipe goes.
RECIPE_SETTINGS = {
    "batch_size": "train.batch_size",
    "context": "train.context",
    "activation_checkpointing": "train.activation_checkpointing",
    "lr": "optimizer.lr",
    "beta1": "optimizer.beta1",
    "beta2": "optimizer.beta2",
    "eps": "optimizer.eps",
    "weight_decay": "optimizer.weight_decay",
    "clip": "optimizer.clip",
    "warmup": "schedule.warmup",
    "schedule": "schedule.kind",
    "final_fraction": "schedule.final_fraction",
}


def resolve(given: Given, facts: Facts, chosen: Given | None = None) -> tuple[Config, list[str]]:
    """Fill in what is not given: from the preset, then from the tables. Returns the config and the choices in words.

    What is `chosen` takes the place of the tables' (pylm.budget).
    """
    decisions: list[str] = []
    preset = str(given.get("preset") or "auto")
    settings = _auto_preset(given, facts) if preset == "auto" else _named_preset(preset)
    settings |= chosen or {}
    settings |= {name: value for name, value in given.items() if name not in LENGTHS}
    settings["preset"] = preset
    if "train.context" in given and "model.max_context" not in given and preset == "auto":
        settings["model.max_context"] = given["train.context"]
    _set_vocabulary(settings, given, facts)
    settings["data.path"] = facts.dataset_path
    settings["data.sha256"] = facts.dataset_sha256
    settings.setdefault("train.device", facts.device)
    settings["train.n_processes"] = facts.n_processes
    context = _int(settings, "train.context", min(256, _int(settings, "model.max_context", 256)))
    batch_size = _int(settings, "train.batch_size", 32)

    n_parameters = count_parameters(settings)
    source = (
        f"for {facts.n_train_tokens:,} tokens on {facts.device}" if preset == "auto" else f"preset {preset}"
    )
    decisions.append(
        f"{settings['model.n_layers']} layers x {settings['model.width']}, context {context}, batch {batch_size}, "
        f"lr {settings.get('optimizer.lr', OptimizerConfig.lr):g} ({source})"
    )
    decisions.append(f"{n_parameters:,} parameters")
    settings |= _length(given, settings, n_parameters, facts, decisions)
    total_steps = int(settings.get("train.steps") or 0)
    _set_intervals(settings, total_steps, batch_size * context, facts)
    if "train.micro_batch" not in given:
        settings["train.micro_batch"] = _micro_batch(_share(batch_size, facts), context, facts)
    if "schedule.warmup" not in given and total_steps:
        settings["schedule.warmup"] = min(
            int(settings.get("schedule.warmup") or 100), max(1, total_steps // 10)
        )
    return from_flat(settings), decisions


def resume(given: Given, stored: Config, facts: Facts) -> Config:
    """The stored config with what a resumed run may change; the caller has refused the rest."""
    settings = stored.flat() | {name: value for name, value in given.items() if name not in LENGTHS}
    settings["data.path"] = facts.dataset_path
    settings.setdefault("train.device", facts.device)
    settings["train.n_processes"] = facts.n_processes
    if "train.shard" not in given:
        settings["train.shard"] = "auto"
    if "train.micro_batch" not in given:
        share = _share(stored.train.batch_size, facts)
        settings["train.micro_batch"] = _divisor(share, stored.train.micro_batch)
    if any(name in given for name in ("train.steps", "train.budget_s", *LENGTHS)):
        settings |= {"train.steps": 0, "train.budget_s": 0.0}
        settings |= _length(given, settings, count_parameters(settings), facts, [])
    return from_flat(settings)


def count_parameters(settings: Mapping[str, Value]) -> int:
    """Parameters of the model that the settings describe, a tied weight once."""
    from pylm.models.build import build_model

    return build_model(_model(settings), device="meta").n_parameters()


def _model(settings: Mapping[str, Value]) -> ModelConfig:
    model_settings = {name: value for name, value in settings.items() if name.startswith("model.")}
    return from_flat({**model_settings, "train.steps": 1, "train.context": 1}).model


def parse_budget(text: str) -> Given:
    """The length that a budget names: a time (90s, 10m, 1h30m), operations (2e18flops) or tokens (500Mtok).

    Raises ConfigError.
    """
    import re

    number = r"(\d+(?:\.\d+)?(?:e\d+)?)"
    units = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    if work := re.fullmatch(rf"{number}([kMGBTPE]?)(flops|tok)", text.strip()):
        amount = float(work[1]) * units[work[2]]
        if amount >= 1:
            return {"train.flops": amount} if work[3] == "flops" else {"train.tokens": int(amount)}
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    seconds = (
        sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True))
        if match
        else 0
    )
    if seconds <= 0:
        raise ConfigError(
            f"--budget expects a time such as 90s, 10m or 1h30m, operations such as 2e18flops or tokens such as "
            f"500Mtok, found {text!r}"
        )
    return {"train.budget_s": float(seconds)}


def _auto_preset(given: Given, facts: Facts) -> dict[str, Value]:
    """The shape by the tables; the switches and rates that docs/training.md measures."""
    sizes = AUTO_SIZES["cpu" if facts.device == "cpu" else "cuda"]
    size = next(size for size in sizes if facts.n_train_tokens < size.below_tokens)
    settings: dict[str, Value] = {
        "model.n_layers": size.n_layers,
        "model.width": size.width,
        "model.n_heads": size.n_heads,
        "model.max_context": size.context,
        "model.mlp": "relu2",
        "model.norm_kind": "layer",
        "model.norm_gains": "none",
        "model.qk_norm": True,
        "model.embedding_norm": True,
        "model.embedding_conv": 3,
        "model.tied": False,
        "model.init": "zero_out",
        "train.context": size.context,
        "train.batch_size": size.batch_size,
        "schedule.kind": "wsd",
        "schedule.warmup": 20,
        "schedule.final_fraction": 0.0,
        "optimizer.weight_decay": 0.01,
    }
    if given.get("optimizer.name") == "adamw":
        # The rate is for all matrices then, and what suits the head is too high for them.
        return settings | {"optimizer.lr": size.lr / 4}
    return settings | {
        "optimizer.name": "muon",
        "optimizer.lr": size.lr,
        "optimizer.embedding_lr": 0.06,
        "optimizer.muon_lr": size.muon_lr,
        "optimizer.muon_momentum": size.muon_momentum,
        "optimizer.muon_iterations": 3,
        "optimizer.beta1": 0.8,
        "optimizer.clip": 0.0,
    }


def _named_preset(name: str) -> dict[str, Value]:
    preset = find_preset(name)
    settings: dict[str, Value] = {f"model.{field}": value for field, value in asdict(preset.model).items()}
    for field, setting in RECIPE_SETTINGS.items():
        if (value := getattr(preset.recipe, field)) is not None:
            settings[setting] = value
    return settings


def _set_vocabulary(settings: dict[str, Value], given: Given, facts: Facts) -> None:
    asked = given.get("model.vocab_size")
    if asked is not None and asked != facts.vocab_size:
        raise ConfigError(
            f"model.vocab_size {asked} does not match the dataset's tokenizer, whose largest id is "
            f"{facts.vocab_size - 1}: leave it out, or tokenize with --vocab-size {asked}"
        )
    settings["model.vocab_size"] = facts.vocab_size


def _length(
    given: Given, settings: Mapping[str, Value], n_parameters: int, facts: Facts, decisions: list[str]
) -> dict[str, Value]:
    """train.steps or train.budget_s: the first length reached ends a run, a budget in time stands alone."""
    batch_size, context = int(settings["train.batch_size"] or 0), int(settings["train.context"] or 0)
    tokens_per_step = batch_size * context
    ends = []
    if (flops := given.get("train.flops")) is not None:
        ends.append(math.ceil(float(flops) / training_flops(_model(settings), context, batch_size)))
    if (steps := given.get("train.steps")) is not None:
        ends.append(int(steps))
    if (tokens := given.get("train.tokens")) is not None:
        ends.append(math.ceil(int(tokens) / tokens_per_step))
    if (epochs := given.get("train.epochs")) is not None:
        ends.append(math.ceil(float(epochs) * facts.n_train_tokens / tokens_per_step))
    if budget_s := given.get("train.budget_s"):
        if ends:
            raise ConfigError("--budget stands alone: leave out --steps, --tokens and --epochs")
        return {"train.budget_s": budget_s}
    if ends:
        if min(ends) < 1:
            raise ConfigError(f"the run's length must be at least one step, found {min(ends)}")
        return {"train.steps": min(ends)}
    wanted = min(TOKENS_PER_PARAMETER * n_parameters, MAX_EPOCHS * facts.n_train_tokens)
    steps = max(MIN_STEPS, math.ceil(wanted / tokens_per_step))
    decisions.append(
        f"{steps:,} steps: {steps * tokens_per_step:,} tokens, "
        f"{steps * tokens_per_step / facts.n_train_tokens:.2f} epochs, "
        f"{steps * tokens_per_step / n_parameters:.1f} a parameter"
    )
    return {"train.steps": steps}


def _set_intervals(settings: dict[str, Value], steps: int, tokens_per_step: int, facts: Facts) -> None:
    """Evaluate, save and sample N_EVALUATIONS times a run, the evaluations together about one part in thirty of it."""
    every = max(1, steps // N_EVALUATIONS) if steps else 250  # a budget goes by time, see pylm.train
    for name in ("train.eval_every", "train.save_every", "train.sample_every"):
        settings.setdefault(name, every)
    low, high = (8_192, 65_536) if facts.device == "cpu" else (65_536, 1_048_576)
    share = steps * tokens_per_step // 10 // N_EVALUATIONS if steps else high // 2
    settings.setdefault("train.eval_tokens", min(max(share, low), high))
    settings.setdefault(
        "train.final_eval_tokens",
        max(int(settings["train.eval_tokens"] or 0), steps * tokens_per_step // 10) if steps else high * 8,
    )


def _micro_batch(batch_size: int, context: int, facts: Facts) -> int:
    """The largest divisor of the batch that is worth having; what does not fit the memory is cut later.

    On a CPU the logits of a micro-batch, with their gradient, stay within a GiB. A GPU takes more tokens at a time the
    fewer gradients are to be added up.
    """
    if facts.device == "cpu":
        return _divisor(batch_size, max(1, (1 << 30) // (context * facts.vocab_size * 4 * 3)))
    return _divisor(batch_size, max(1, GPU_TOKENS // context))


def _share(batch_size: int, facts: Facts) -> int:
    """Sequences of each process. Raises ConfigError where they cannot be shared out equally."""
    if batch_size % facts.n_processes:
        raise ConfigError(
            f"train.batch_size {batch_size} is not a multiple of the {facts.n_processes} processes: "
            "batch = micro-batch x accumulation x processes"
        )
    return batch_size // facts.n_processes


def _divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return max(divisor for divisor in range(1, min(most, number) + 1) if number % divisor == 0)


def _int(settings: dict[str, Value], name: str, default: int) -> int:
    value = settings.setdefault(name, default)
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be at least 1, found {value!r}")
    return value
