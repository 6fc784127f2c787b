"""A training state on disk: weights and optimizer as safetensors, the rest as JSON, whole or not at all.

`checkpoints/step-N/` is filled beside and renamed; `last.json` and `best.json` name the checkpoints that count, and are
replaced after it. So a process killed at any moment leaves a run that resumes. Tensors only: nothing is ever unpickled.

A checkpoint does not know how many processes wrote it: parts of tensors are gathered when they are written, one after
another by the first process, and cut when they are loaded.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pylm.config import Config, from_flat, read_toml
from pylm.errors import DataError, PylmError, RunError
from pylm.files import new_folder, read_json, write_json
from pylm.models.build import Decoder, build_model
from pylm.parts import in_parts, local, placed_like, whole
from pylm.tokenizer import Tokenizer
from pylm.world import World

Which = Literal["best", "last"]
FILE_BYTES = 8 << 30  # of one file of tensors: what the first process holds while it writes a model in parts


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


def save(
    run: Path,
    state: State,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    keep: int = 1,
    world: World | None = None,
) -> None:
    """Write checkpoints/step-N and point last.json to it, `keep` checkpoints and the best one staying.

    The first process writes; the others help where tensors are in parts. Raises PylmError on a full disk, the older
    checkpoints intact.
    """
    world = world or World()
    folder = run / "checkpoints" / f"step-{state.step}"
    kinds = {"model": _weights(model), "optimizer": _moments(model, optimizers)}
    if not any(in_parts(tensor) for tensors in kinds.values() for tensor in tensors.values()):
        if world.is_first:
            _fill(folder, state, kinds, world)
    elif world.decided(lambda: not folder.exists()):
        _fill(folder, state, kinds, world)
    if world.is_first:
        point(run, "last", state.step, keep)


def _fill(folder: Path, state: State, kinds: Mapping[str, dict[str, Tensor]], world: World) -> None:
    """Write one checkpoint, if it is not there."""
    if not world.is_first:
        for tensors in kinds.values():
            for tensor in tensors.values():
                whole(tensor)
        return
    if folder.exists():
        return
    with new_folder(folder) as partial:
        names = [name for kind, tensors in kinds.items() for name in _write(folder, partial, kind, tensors)]
        checksums = {name: _sha256(partial / name) for name in names}
        write_json(
            partial / "state.json",
            {"format": "pylm-state", "version": 1, **dataclasses.asdict(state), "sha256": checksums},
        )


def _write(folder: Path, partial: Path, kind: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """Write tensors, parts gathered in their order, to one file or several; return their names."""
    groups: list[list[str]] = [[]]
    n_bytes = 0
    for name, tensor in tensors.items():
        if n_bytes + tensor.nbytes > FILE_BYTES and groups[-1]:
            groups.append([])
            n_bytes = 0
        groups[-1].append(name)
        n_bytes += tensor.nbytes
    files = []
    for number, names in enumerate(groups, 1):
        several = f"-{number:05}-of-{len(groups):05}" if len(groups) > 1 else ""
        file = f"{kind}{several}.safetensors"
        # What is gathered leaves the device at once: it would not fit.
        held = {name: whole(t).cpu() if in_parts(t := tensors[name]) else t for name in names}
        try:
            save_file(held, partial / file)
        except SafetensorError as error:  # it wraps the system's refusal, a full disk for one
            raise PylmError(f"{folder / file}: cannot be written: {error}") from error
        files.append(file)
    return files


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


def load_weights(run: Path, step: int, model: nn.Module, world: World | None = None) -> None:
    """Fill `model` from a checkpoint; raises RunError naming the first tensor that does not fit.

    The first process reads, so that the others need no view of the run's folder.
    """
    world = world or World()
    folder = run / "checkpoints" / f"step-{step}"
    expected = _weights(model)
    shapes = {name: tensor.shape for name, tensor in expected.items()}
    world.decided(lambda: _check_shapes(folder, _shapes(folder, "model"), shapes))
    stored = _read(folder, "model") if world.is_first else None
    with torch.no_grad():
        for name, tensor in world.tensors(stored, next(model.parameters()).device):
            local(expected[name]).copy_(local(placed_like(tensor, expected[name])))


def load_optimizer(
    run: Path, step: int, model: nn.Module, optimizers: Sequence[Optimizer], world: World | None = None
) -> None:
    """Fill the optimizer's moments, by the names of their parameters."""
    world = world or World()
    folder = run / "checkpoints" / f"step-{step}"
    owners = {
        id(p): optimizer for optimizer in optimizers for g in optimizer.param_groups for p in g["params"]
    }
    stored = _read(folder, "optimizer") if world.is_first else None
    for name, tensor in world.tensors(stored, next(model.parameters()).device):
        parameter_name, _, entry = name.rpartition(".")
        try:
            parameter = model.get_parameter(parameter_name)
        except AttributeError:
            raise world.everywhere(
                RunError(f"{folder}: the optimizer's {name} belongs to no parameter of this model")
            ) from None
        owners[id(parameter)].state[parameter][entry] = placed_like(tensor, parameter)


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


def _read(folder: Path, kind: str) -> Iterator[tuple[str, Tensor]]:
    """A checkpoint's tensors of one kind, one after another."""
    for path in _files(folder, kind):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118  # safetensors' handle is no mapping
                yield name, file.get_tensor(name)


def _shapes(folder: Path, kind: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the same, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _files(folder, kind):
        with _opened(path) as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def _files(folder: Path, kind: str) -> list[Path]:
    files = sorted(folder.glob(f"{kind}*.safetensors"))
    if not files:
        raise RunError(f"{folder / kind}.safetensors: expected tensors, found no file")
    return files


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise DataError(f"{path}: damaged: expected safetensors: {error}") from None


def _check_shapes(
    path: Path, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    for name in sorted(expected.keys() | found.keys()):
        expected_shape: Any = tuple(expected[name]) if name in expected else "no such tensor"
        found_shape: Any = tuple(found[name]) if name in found else "no such tensor"
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
