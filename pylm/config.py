"""The settings of a run: one frozen tree that holds every default, checks itself, and is written as TOML.

A setting has a dotted name, section and field: `optimizer.lr`. The command line, a `--config` file and `--set` all end
in a flat dict of those names ("as given"); `pylm.auto` turns it into a whole `Config`.
"""

import dataclasses
import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from pylm.errors import ConfigError
from pylm.models.config import ModelConfig

Value = bool | int | float | str | None
Given = dict[str, Value]


@dataclass(frozen=True)
class DataConfig:
    """Which dataset a run reads."""

    path: str = ""
    sha256: str = ""  # the dataset's identity; a run never continues on another one
    weights: str = (
        ""  # of several datasets, in their order, such as "0.7,0.3"; without them every token counts the same
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019) for everything, or Muon for the blocks' matrices and AdamW for the rest.

    Weight decay is decoupled and touches matrices only; gradients are clipped by their global norm.
    """

    name: str = "adamw"
    lr: float = 1e-3  # AdamW's peak
    embedding_lr: float = 0.0  # the same for the tables of tokens and positions; 0: as lr
    muon_lr: float = 0.02  # Muon's peak, of updates whose singular values are about one
    muon_momentum: float = 0.95
    muon_iterations: int = 5  # of Newton and Schulz; fewer are cheaper and less exact
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0  # 0 for none

    def __post_init__(self) -> None:
        _require(self.name in OPTIMIZERS, "optimizer.name", f"one of {', '.join(OPTIMIZERS)}", self.name)
        _require(self.lr > 0, "optimizer.lr", "above 0", self.lr)
        _require(self.embedding_lr >= 0, "optimizer.embedding_lr", "at least 0 (0 for lr)", self.embedding_lr)
        _require(self.muon_lr > 0, "optimizer.muon_lr", "above 0", self.muon_lr)
        _require(self.muon_iterations >= 1, "optimizer.muon_iterations", "at least 1", self.muon_iterations)
        _require(
            0 <= self.muon_momentum < 1, "optimizer.muon_momentum", "0 or more, below 1", self.muon_momentum
        )
        _require(0 <= self.beta1 < 1, "optimizer.beta1", "at least 0 and below 1", self.beta1)
        _require(0 <= self.beta2 < 1, "optimizer.beta2", "at least 0 and below 1", self.beta2)
        _require(self.eps > 0, "optimizer.eps", "above 0", self.eps)
        _require(self.weight_decay >= 0, "optimizer.weight_decay", "at least 0", self.weight_decay)
        _require(self.clip >= 0, "optimizer.clip", "at least 0 (0 for none)", self.clip)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run: linear warm-up, then the shape named by `kind` down to `final_fraction` of it."""

    kind: str = "cosine"
    warmup: int = 100  # steps
    final_fraction: float = 0.1
    flat: float = 0.3  # wsd: how much of the run is at the peak before the rate falls linearly

    def __post_init__(self) -> None:
        _require(self.kind in SCHEDULES, "schedule.kind", f"one of {', '.join(SCHEDULES)}", self.kind)
        _require(self.warmup >= 0, "schedule.warmup", "at least 0 steps", self.warmup)
        _require(0 <= self.flat < 1, "schedule.flat", "at least 0 and below 1", self.flat)
        _require(0 <= self.final_fraction <= 1, "schedule.final_fraction", "0 to 1", self.final_fraction)


OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "linear", "wsd", "constant")
DTYPES = ("float32", "bfloat16", "float16")
COMPILE = ("auto", "on", "off")
SHARD = ("auto", "on", "off")


@dataclass(frozen=True)
class TrainConfig:
    """The loop: its length, its batches, and what it does every so many steps."""

    steps: int = 0  # 0 when budget_s ends the run
    budget_s: float = 0.0  # 0 when steps end it
    batch_size: int = 32  # sequences of one optimizer step, over all devices
    micro_batch: int = 32  # sequences one device holds; batch_size = micro_batch x accumulation x n_processes
    n_processes: int = 1  # that train together, one a device, as torchrun starts them
    shard: str = (
        "auto"  # a part of the model on each device: "on", "off", or "auto": where a copy does not fit
    )
    context: int = 256  # tokens of a training window
    activation_checkpointing: bool = (
        False  # recompute each block in the backward pass: less memory, a third more work
    )
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"  # of the arithmetic; weights, moments and sums of losses are float32 always
    compile: str = "auto"  # torch.compile of the blocks: "on", "off", or "auto": on a GPU
    early_update: bool = False  # update inside the backward pass, which then never holds all gradients
    document_masking: bool = False  # attention stays within a document, and positions begin with it
    shuffle_tokens: bool = False  # the tokens of each training window in a random order
    mask_random: float = 0.0  # the part of the training inputs that are replaced by random ids
    log_every: int = 10  # steps
    eval_every: int = 250  # steps
    eval_tokens: int = 65_536  # targets of one evaluation, spread over the validation split
    final_eval_tokens: int = 1_048_576  # the same for the last one
    save_every: int = 500  # steps; 0 for none
    save_minutes: float = 0.0  # also every so many minutes; 0 for none
    save_epochs: float = 0.0  # also every so many epochs; 0 for none
    keep: int = 1  # of the last checkpoints; the best one is kept besides
    sample_every: int = 500  # steps; 0 for none
    sample_tokens: int = 64
    tensorboard: bool = False  # also write what metrics.jsonl has for TensorBoard

    def __post_init__(self) -> None:
        for name in ("batch_size", "micro_batch", "context", "log_every", "eval_every", "keep"):
            _require(getattr(self, name) >= 1, f"train.{name}", "at least 1", getattr(self, name))
        for name in ("eval_tokens", "final_eval_tokens"):
            _require(getattr(self, name) >= 1, f"train.{name}", "at least 1", getattr(self, name))
        for name in ("sample_every", "sample_tokens", "seed", "save_every", "save_minutes", "save_epochs"):
            _require(getattr(self, name) >= 0, f"train.{name}", "at least 0", getattr(self, name))
        _require(self.seed < 2**63, "train.seed", "below 2^63", self.seed)
        _require(self.dtype in DTYPES, "train.dtype", f"one of {', '.join(DTYPES)}", self.dtype)
        _require(self.compile in COMPILE, "train.compile", f"one of {', '.join(COMPILE)}", self.compile)
        _require(self.n_processes >= 1, "train.n_processes", "at least 1", self.n_processes)
        _require(self.shard in SHARD, "train.shard", f"one of {', '.join(SHARD)}", self.shard)
        _require(0 <= self.mask_random < 1, "train.mask_random", "at least 0 and below 1", self.mask_random)
        if self.shuffle_tokens and self.document_masking:
            raise ConfigError(
                "train.shuffle_tokens and train.document_masking exclude each other: "
                "shuffled tokens have no documents"
            )
        _require(
            (self.steps >= 1) != (self.budget_s > 0),
            "train.steps and train.budget_s",
            "exactly one of the two above 0",
            f"{self.steps} and {self.budget_s}",
        )
        if self.batch_size % (self.micro_batch * self.n_processes):
            several = f" x {self.n_processes} processes" if self.n_processes > 1 else ""
            raise ConfigError(
                f"train.batch_size {self.batch_size} is not a multiple of train.micro_batch {self.micro_batch}"
                f"{several}: batch = micro-batch x accumulation{' x processes' if several else ''}; choose a divisor"
            )

    @property
    def accumulation(self) -> int:
        """Micro-batches of one optimizer step on one device."""
        return self.batch_size // (self.micro_batch * self.n_processes)


@dataclass(frozen=True)
class Config:
    """Everything a run is made of; equal configs on equal data give equal runs."""

    preset: str
    model: ModelConfig
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def flat(self) -> dict[str, Value]:
        """Every setting by its dotted name, `preset` among them."""
        values: dict[str, Value] = {"preset": self.preset}
        for section in SECTIONS:
            part = getattr(self, section)
            values |= {
                f"{section}.{item.name}": getattr(part, item.name) for item in dataclasses.fields(part)
            }
        return values


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "train": TrainConfig,
}

# Lengths as a user may give them; `pylm.auto` turns them into train.steps or train.budget_s.
LENGTHS: dict[str, type] = {"train.tokens": int, "train.epochs": float, "train.flops": float}

# What a resumed run may change: where and how far it goes and what it reports, not what it computes.
MAY_CHANGE = frozenset(
    {
        "train.steps",
        "train.budget_s",
        "train.tokens",
        "train.epochs",
        "train.flops",
        "train.micro_batch",
        "train.n_processes",
        "train.shard",
        "train.activation_checkpointing",
        "train.device",
        "train.dtype",
        "train.compile",
        "train.early_update",
        "train.log_every",
        "train.eval_every",
        "train.eval_tokens",
        "train.final_eval_tokens",
        "train.save_every",
        "train.save_minutes",
        "train.save_epochs",
        "train.keep",
        "train.tensorboard",
        "train.sample_every",
        "train.sample_tokens",
        "model.dropout",
        "data.path",
    }
)


def setting_types() -> dict[str, type]:
    """The dotted name and type of every setting that may be given."""
    types: dict[str, type] = {"preset": str, **LENGTHS}
    for section, part in SECTIONS.items():
        hints = get_type_hints(part)
        types |= {f"{section}.{item.name}": hints[item.name] for item in dataclasses.fields(part)}
    return types


def check_given(given: Mapping[str, object], source: str) -> Given:
    """Return the settings with ints widened to floats where a float is meant.

    Raises ConfigError for an unknown name (with the nearest one) or a value of another type; `source` says where from.
    """
    types = setting_types()
    checked: Given = {}
    for name, value in given.items():
        if name not in types:
            raise ConfigError(f"{source}: unknown setting {name!r}{_nearest(name, types)}")
        kind = types[name]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        kinds = getattr(kind, "__args__", (kind,))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            expected = " or ".join("none" if item is type(None) else item.__name__ for item in kinds)
            raise ConfigError(f"{source}: {name} expects {expected}, found {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{source}: {name} expects a finite number, found {value!r}")
        checked[name] = value  # type: ignore[assignment]  # checked just above
    return checked


def parse_set(items: tuple[str, ...]) -> Given:
    """Read `--set key=value` pairs; a value is TOML, or else a bare string."""
    given: dict[str, object] = {}
    for item in items:
        name, separator, text = item.partition("=")
        if not separator:
            raise ConfigError(f"--set expects key=value, found {item!r}")
        given[name.strip()] = _parse_value(text.strip())
    return check_given(given, "--set")


def parse_save_every(text: str) -> Given:
    """Read `--save-every`: steps (500), minutes (10m) or epochs (1ep, 0.5ep)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m|ep)?", text.strip())
    if match is None or float(match[1]) <= 0 or (match[2] is None and "." in match[1]):
        raise ConfigError(f"--save-every expects steps (500), minutes (10m) or epochs (1ep), found {text!r}")
    if match[2] is None:
        return {"train.save_every": int(match[1])}
    name = {"m": "train.save_minutes", "ep": "train.save_epochs"}[match[2]]
    return {"train.save_every": 0, name: float(match[1])}


def read_toml(path: Path) -> Given:
    """Read a config file: tables are sections, all of it optional."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: expected a config file, found none") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML: {error}") from None
    given: dict[str, object] = {}
    for section, table in tables.items():
        given |= (
            {f"{section}.{name}": value for name, value in table.items()}
            if isinstance(table, dict)
            else {section: table}
        )
    return check_given(given, str(path))


def write_toml(config: Config) -> str:
    """The config as TOML that `read_toml` reads back; None is written by leaving the line out."""
    # By hand: the standard library only reads TOML, and flat tables of scalars need no more than this.
    lines = [f"preset = {_toml(config.preset)}"]
    for section in SECTIONS:
        part = getattr(config, section)
        lines += ["", f"[{section}]"]
        values = ((item.name, getattr(part, item.name)) for item in dataclasses.fields(part))
        lines += [f"{name} = {_toml(value)}" for name, value in values if value is not None]
    return "\n".join(lines) + "\n"


def from_flat(values: Mapping[str, Value]) -> Config:
    """Build the tree from dotted names; what is missing takes its default. The parts check themselves."""
    sections: dict[str, Any] = {}
    for section, part in SECTIONS.items():
        prefix = f"{section}."
        fields = {
            name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)
        }
        sections[section] = part(**fields)
    config = Config(preset=str(values.get("preset", "auto")), **sections)
    if config.train.context > config.model.max_context:
        raise ConfigError(
            f"train.context {config.train.context} exceeds model.max_context {config.model.max_context}: "
            "lower --context or raise the model's with --set model.max_context=N"
        )
    _check_early_update(config)
    if config.train.document_masking and config.model.attention != "full":
        raise ConfigError(
            f"train.document_masking: model.attention {config.model.attention} cannot stay within a document; "
            "only full attention can"
        )
    return config


def _check_early_update(config: Config) -> None:
    """Refuse what needs all gradients together where they never are."""
    if not config.train.early_update:
        return
    needs = {
        f"--batch-size {config.train.micro_batch}, --micro-batch the same (no accumulation)": (
            config.train.accumulation > 1
        ),
        "--set optimizer.clip=0 (no norm of all gradients)": config.optimizer.clip > 0,
        "--optimizer adamw": config.optimizer.name != "adamw",
        "--dtype float32 or bfloat16 (no scale of the loss)": config.train.dtype == "float16",
        "--set train.shard=off (no gradient in parts)": config.train.shard == "on",
    }
    if missing := [name for name, lacks in needs.items() if lacks]:
        raise ConfigError(f"train.early_update needs {'; '.join(missing)}")


def differences(given: Mapping[str, Value], stored: Mapping[str, Value]) -> list[str]:
    """What `given` would change in a stored run although it must not, a line each with both values."""
    fixed = (name for name in given if name not in MAY_CHANGE)
    return [
        f"{name}: the run has {stored.get(name)!r}, this command says {given[name]!r}"
        for name in fixed
        if given[name] != stored.get(name)
    ]


def _require(condition: bool, name: str, expected: str, found: object) -> None:
    if not condition:
        raise ConfigError(f"{name} must be {expected}, found {found}")


def _nearest(name: str, names: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    near = near or [known for known in names if known.endswith(f".{name}")][:1]
    return f"; did you mean {near[0]!r}?" if near else f"; the sections are {', '.join(SECTIONS)}"


def _parse_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None if text == "none" else text


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = repr(value)
        return text if any(mark in text for mark in ".einf") else f"{text}.0"
    escaped = "".join(c if c >= " " and c not in '"\\\x7f' else f"\\u{ord(c):04x}" for c in str(value))
    return f'"{escaped}"'
