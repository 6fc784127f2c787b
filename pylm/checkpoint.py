"""A training state on disk: weights and optimizer as safetensors, the rest as JSON, whole or not at all.

`checkpoints/step-N/` is filled beside and renamed; `last.json` and `best.json` name the checkpoints that count, and are
replaced after it. So a process killed at any moment leaves a run that resumes. Tensors only: nothing is ever unpickled.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pylm.config import Config, from_flat, read_toml
from pylm.errors import DataError, PylmError, RunError
from pylm.files import new_folder, read_json, write_json
from pylm.models.build import Decoder, build_model
from pylm.tokenizer import Tokenizer

Which = Literal["best", "last"]


@dataclass
class State:
    """Where a run stands. Together with weights, optimizer and config it decides everything that follows."""

    step: int = 0  # optimizer steps taken
    samples_seen: int = 0  # windows consumed: the position in the data
    tokens: int = 0  # targets trained on
    epoch: int = 0
    seed: int = 0  # randomness of step s is a function of (seed, s)
    elapsed_s: float = 0.0  # of training, summed over resumes
    skipped: int = 0  # steps that changed nothing, their gradients not being finite
    scale: float | None = None  # of float16's loss, and the finite steps since it changed
    finite_steps: int = 0
    best_loss: float | None = None  # validation, nats per token
    best_step: int | None = None
    val_loss: float | None = None  # of this step, if it was evaluated
    val_bits_per_byte: float | None = None


def save(run: Path, state: State, model: nn.Module, optimizers: Sequence[Optimizer], keep: int = 1) -> None:
    """Write checkpoints/step-N and point last.json to it, `keep` checkpoints and the best one staying.

    Raises PylmError on a full disk, the older ones intact.
    """
    folder = run / "checkpoints" / f"step-{state.step}"
    if not folder.exists():
        with new_folder(folder) as partial:
            files = {
                "model.safetensors": _weights(model),
                "optimizer.safetensors": _moments(model, optimizers),
            }
            for name, tensors in files.items():
                try:
                    save_file(tensors, partial / name)
                except SafetensorError as error:  # it wraps the system's refusal, a full disk for one
                    raise PylmError(f"{folder / name}: cannot be written: {error}") from error
            checksums = {name: _sha256(partial / name) for name in files}
            write_json(
                partial / "state.json",
                {"format": "pylm-state", "version": 1, **dataclasses.asdict(state), "sha256": checksums},
            )
    point(run, "last", state.step, keep)


def point(run: Path, which: Which, step: int, keep: int = 1) -> None:
    """Make last.json or best.json name the checkpoint of `step`, and delete those that need not stay."""
    write_json(
        run / "checkpoints" / f"{which}.json",
        {"format": "pylm-pointer", "version": 1, "step": step, "path": f"step-{step}"},
    )
    prune(run, keep)


def prune(run: Path, keep: int = 1) -> None:
    """Delete all checkpoints but the last `keep` and the best, and what a killed process left half-written."""
    last, best = (pointed_step(run, which) for which in ("last", "best"))
    steps = {
        int(number)
        for folder in (run / "checkpoints").glob("step-*")
        if (number := folder.name.removeprefix("step-")).isdigit()
    }
    # One past the last was renamed into place by a process that was killed before it could point to it.
    kept = sorted((step for step in steps if last is not None and step <= last), reverse=True)[:keep]
    names = {f"step-{step}" for step in (*kept, last, best) if step is not None}
    for folder in (run / "checkpoints").glob("*step-*"):
        if folder.name not in names:
            shutil.rmtree(folder)


def pointed_step(run: Path, which: str) -> int | None:
    """The step that last.json or best.json names; None when there is no such file."""
    pointer = run / "checkpoints" / f"{which}.json"
    if not pointer.exists():
        return None
    step = read_json(pointer, "pylm-pointer", 1).get("step")
    if not isinstance(step, int):
        raise DataError(f"{pointer}: expected a step number, found {step!r}")
    return step


def load_state(run: Path, step: int) -> State:
    """Read state.json of a checkpoint and check that its files are whole."""
    folder = run / "checkpoints" / f"step-{step}"
    value = read_json(folder / "state.json", "pylm-state", 1)
    for name, expected in value["sha256"].items():
        found = _sha256(folder / name)
        if found != expected:
            raise DataError(f"{folder / name}: damaged: expected sha256 {expected[:12]}, found {found[:12]}")
    fields = {item.name for item in dataclasses.fields(State)}
    return State(**{name: item for name, item in value.items() if name in fields})


def load_weights(run: Path, step: int, model: nn.Module) -> None:
    """Fill `model` from a checkpoint; raises RunError naming the first tensor that does not fit."""
    path = run / "checkpoints" / f"step-{step}" / "model.safetensors"
    stored = _read(path)
    expected = _weights(model)
    _check_shapes(path, stored, {name: tensor.shape for name, tensor in expected.items()})
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in stored:
                tensor.copy_(stored[name])


def load_optimizer(run: Path, step: int, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Fill the optimizer's moments, by the names of their parameters."""
    path = run / "checkpoints" / f"step-{step}" / "optimizer.safetensors"
    owners = {
        id(p): optimizer for optimizer in optimizers for g in optimizer.param_groups for p in g["params"]
    }
    for name, tensor in _read(path).items():
        parameter_name, _, entry = name.rpartition(".")
        try:
            parameter = model.get_parameter(parameter_name)
        except AttributeError:
            raise RunError(f"{path}: {name} belongs to no parameter of this model") from None
        owners[id(parameter)].state[parameter][entry] = tensor.to(parameter.device)


@dataclass(frozen=True)
class Inference:
    """A trained model and its tokenizer, ready to generate."""

    model: Decoder
    tokenizer: Tokenizer
    config: Config
    step: int


def load_for_inference(run: Path, which: Which, device: torch.device | str) -> Inference:
    """Load the best or last checkpoint of a run in evaluation mode."""
    step = pointed_step(run, which)
    if step is None and which == "best":  # a run that has not been evaluated yet
        step = pointed_step(run, "last")
    if step is None:
        raise RunError(f"{run}: expected a checkpoint, found none; train with `pylm train`")
    config = load_config(run)
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    load_state(run, step)
    model = build_model(config.model)
    load_weights(run, step, model)
    return Inference(model.to(device).eval(), tokenizer, config, step)


def load_config(run: Path) -> Config:
    """The resolved config that the run was started with, as last resumed."""
    return from_flat(read_toml(run / "config.toml"))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors by name, a tied one once, no compile prefix."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name.removeprefix("_orig_mod.")] = tensor.detach().contiguous()
    return tensors


def _moments(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    return {
        f"{name}.{entry}": value.detach().contiguous()
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        if parameter in optimizer.state
        for entry, value in optimizer.state[parameter].items()
    }


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path}: expected tensors, found no file") from None
    except SafetensorError as error:
        raise DataError(f"{path}: damaged: expected safetensors: {error}") from None


def _check_shapes(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    for name in sorted(expected.keys() | found.keys()):
        expected_shape: Any = tuple(expected[name]) if name in expected else "no such tensor"
        found_shape: Any = tuple(found[name].shape) if name in found else "no such tensor"
        if expected_shape != found_shape:
            raise RunError(
                f"{path}: {name}: the config's model expects {expected_shape}, the checkpoint has {found_shape}: "
                "it belongs to a model of another shape"
            )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise RunError(f"{path}: expected a checkpoint's file, found none") from None
