"""From what was asked to a finished run: finds or resumes its folder, resolves the settings, keeps run.json true."""

import dataclasses
import math
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pylm import checkpoint, metrics
from pylm.accounting.estimate import GIB
from pylm.accounting.run import check_run, fitted, shards, what_fits
from pylm.auto import Facts, resolve, resume
from pylm.budget import choose, chooses
from pylm.config import Config, Given, differences, from_flat, write_toml
from pylm.dataset import Dataset
from pylm.errors import (
    ConfigError,
    DataError,
    Interrupted,
    PylmError,
    RunError,
    TrainingError,
)
from pylm.files import write_bytes, write_text
from pylm.measure import available_bytes, held_bytes, is_out_of_memory, matmul_flops_per_s
from pylm.mixture import Mixture
from pylm.models.presets import find_preset
from pylm.precision import check_dtype, default_dtype
from pylm.progress import ProgressLine, duration
from pylm.runs import locked, run_name, run_path
from pylm.train import Outcome, Trainer
from pylm.world import World, joined

DATA = Path("data")


@dataclass(frozen=True)
class Request:
    """What `pylm train` was asked for."""

    given: Given
    data: tuple[str, ...]  # folders or names under data/, each perhaps with =WEIGHT; none for the newest
    run: str | None
    force: bool  # start anew although the run exists
    command: str  # as typed, for run.json and for resuming
    started_s: float  # time.monotonic() when the command began
    chooses: bool = False  # a budget was given: without a preset the model is chosen for it


def launch(request: Request, log: ProgressLine) -> Path:
    """Start, resume or recognise as finished the run that was asked for, and return its folder.

    Raises PylmError for anything a user can mend, Interrupted after a signal.
    """
    with joined() as world, ExitStack() as held:
        device = world.together(lambda: world.device(_device(request.given)))
        if world.size > 1 and device.type == "cuda":
            torch.cuda.set_device(device)
        data = world.together(lambda: open_data(request.data))
        if len(data.datasets) > 1:
            request.given["data.weights"] = ",".join(f"{weight:g}" for weight in data.weights)
        run = run_path(request.run or run_name(data.name, request.given, data.sha256))
        plan = world.decided(lambda: _begin(run, request, data, world, held, log))
        world.together(lambda: _check_same(data, plan["data_sha256"]))
        if not plan["over"]:
            _train(run, from_flat(plan["config"]), plan["record"], data, request, world)
    return run


def _begin(
    run: Path, request: Request, data: Mixture, world: World, held: ExitStack, log: ProgressLine
) -> dict[str, Any]:
    """Lock the run and settle what is to be done, in the first process; what the others need to know of it."""
    log.log(f"data: {data.path} ({data.n_train_tokens:,} training tokens, {data.first.vocab_size:,} ids)")
    held.enter_context(locked(run))
    if request.force:
        _clear(run)
    config, record = _prepare(run, request, data, world, log)
    last = checkpoint.pointed_step(run, "last")
    over = record["status"] == "finished" and _is_over(config, record, last)
    if over:
        log.log(f"{run} is finished at step {last:,}; nothing to do (--steps N goes on, --force starts anew)")
    else:
        log.log(f"run: {run}" + (f", resumed at step {last:,}" if last else ""))
    return {"config": config.flat(), "record": record, "over": over, "data_sha256": data.sha256}


def _check_same(data: Mixture, expected_sha256: str) -> None:
    """Refuse a process that sees other data than the first one."""
    if data.sha256 != expected_sha256:
        raise DataError(
            f"{data.path} is not the first process's: expected sha256 {expected_sha256[:12]}, "
            f"found {data.sha256[:12]}: give every machine the same dataset"
        )


def open_data(items: tuple[str, ...]) -> Mixture:
    """Open what `--data` names, each NAME or NAME=WEIGHT. Raises ConfigError or DataError."""
    paths: list[str] = []
    weights: list[float] = []
    for item in items:
        name, separator, text = item.rpartition("=")
        if not separator:
            paths.append(item)
            continue
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise ConfigError(f"--data {item}: expected NAME=WEIGHT with a weight above 0, found {text!r}")
        paths.append(name)
        weights.append(weight)
    if weights and len(weights) != len(paths):
        raise ConfigError("--data: give every dataset a weight, or none")
    folders = [resolve_dataset(path) for path in paths] if paths else [resolve_dataset(None)]
    datasets = [Dataset.open(folder) for folder in folders]
    return Mixture.of(datasets, weights if len(datasets) > 1 else None)


def resolve_dataset(name_or_path: str | None) -> Path:
    """A dataset's folder: a path, a name under data/, or the newest there. Raises DataError."""
    if name_or_path is not None:
        path = Path(name_or_path)
        return path if "/" in name_or_path or path.is_dir() else DATA / name_or_path
    newest = max(DATA.glob("*/dataset.json"), key=lambda file: file.stat().st_mtime_ns, default=None)
    if newest is None:
        raise DataError(
            f"{DATA.resolve()}: expected a dataset, found none; make one with `pylm tokenize TEXT`"
        )
    return newest.parent


def _prepare(
    run: Path, request: Request, data: Mixture, world: World, log: ProgressLine
) -> tuple[Config, dict[str, Any]]:
    """The resolved config and run.json's content: stored ones for a run that exists, new ones otherwise."""
    facts = Facts(
        n_train_tokens=data.n_train_tokens,
        vocab_size=data.first.vocab_size,
        device=_device(request.given),
        dataset_path=data.path,
        dataset_sha256=data.sha256,
        n_processes=world.size,
    )
    available = available_bytes(facts.device) // (1 if facts.device.startswith("cuda") else world.local_size)
    if checkpoint.pointed_step(run, "last") is not None:
        stored = checkpoint.load_config(run)
        asked = {**request.given, "data.sha256": data.sha256}
        if changed := differences(asked, stored.flat()):
            raise RunError(
                f"{run} cannot go on with other settings: {'; '.join(changed)}; "
                "give the run's own, another --run, or --force to start anew"
            )
        record = metrics.read_record(run)
        log.log("settings: as the run began: " + "; ".join(record["decisions"]))
        config = shards(resume(request.given, stored, facts), available)
        _say_precision(config, log)
        _say_processes(config, log)
        _say_estimate(config, available, log)
        return config, record
    chosen, reasons = None, []
    if request.chooses and chooses(request.given):
        chosen, why = choose(
            request.given, facts, available, lambda: time.monotonic() - request.started_s, log.log
        )
        reasons = [why]
    config, decisions = resolve(request.given, facts, chosen)
    decisions = reasons + decisions
    if "train.dtype" not in request.given:
        dtype = default_dtype(facts.device, _recipe_dtype(config))
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, dtype=dtype))
    _say_precision(config, log)
    config = shards(config, available)
    if "train.micro_batch" not in request.given:
        config = fitted(config, available)
    log.log("settings: " + "; ".join(decisions))
    _say_processes(config, log)
    _say_estimate(config, available, log)
    return config, {
        "status": "new",
        "decisions": decisions,
        "exit_reason": None,
        "verdict": None,
        "note": None,
    }


def _recipe_dtype(config: Config) -> str | None:
    return None if config.preset == "auto" else find_preset(config.preset).recipe.dtype


def _say_precision(config: Config, log: ProgressLine) -> None:
    """Check that the device can compute in the dtype, and say what came out."""
    if sentence := check_dtype(config.train.dtype, config.train.device):
        log.log(sentence)


def _say_estimate(config: Config, available: int, log: ProgressLine) -> None:
    """Say what the run will take, or refuse it, where it cannot fit."""
    peak = matmul_flops_per_s(torch.device(config.train.device), config.train.dtype)
    log.log(check_run(config, available, peak * config.train.n_processes))


def _say_processes(config: Config, log: ProgressLine) -> None:
    """Say how several processes share the work."""
    train = config.train
    if train.n_processes > 1:
        part = "a part of the model on each (FSDP2)" if train.shard == "on" else "a copy on each (DDP)"
        log.log(
            f"{train.n_processes} processes, {part}: batch {train.batch_size} = micro-batch {train.micro_batch} x "
            f"accumulation {train.accumulation} x {train.n_processes}"
        )


def _train(
    run: Path, config: Config, record: dict[str, Any], data: Mixture, request: Request, world: World
) -> None:
    """Train, and leave in run.json how it began, how it goes and how it ended."""
    if world.is_first:
        write_text(run / "config.toml", write_toml(config))
        write_bytes(run / "tokenizer.json", (data.first.path / "tokenizer.json").read_bytes())
    with memory_explained(config, world):
        trainer = Trainer(run, config, data, request.command, request.started_s, world)
    tokenized = [
        {"sources": [source.path for source in dataset.info.sources], **dataset.info.settings}
        for dataset in data.datasets
    ]
    record = {
        "command": request.command,
        "tokenize": tokenized[0] if len(tokenized) == 1 else tokenized,
        "dataset_sha256": data.sha256,
        "n_parameters": trainer.model.n_parameters(),
        "machine": metrics.machine(),
        "versions": metrics.versions(),
        "verdict": None,
        "note": None,
        **record,
    }

    def keep(status: str, exit_reason: str | None, outcome: Outcome | None = None) -> None:
        if not world.is_first:
            return
        state = trainer.state
        evaluation = outcome.evaluation if outcome else None
        before = record.get("peak_memory_bytes") or 0
        record.update(
            status=status,
            exit_reason=exit_reason,
            schedule=dataclasses.asdict(config.schedule)
            | {"steps": config.train.steps or None, "budget_s": config.train.budget_s or None},
            step=state.step,
            tokens=state.tokens,
            loss=evaluation.loss if evaluation else None,
            bits_per_byte=evaluation.bits_per_byte if evaluation else None,
            best_loss=state.best_loss,
            best_step=state.best_step,
            elapsed_s=round(trainer.clock.elapsed_s(), 3),
            peak_memory_bytes=max(before, _peak_memory_bytes()),
        )
        metrics.write_record(run, record)

    keep("running", None)
    try:
        lost = f"{run} has its last checkpoint, and the same command goes on from it"
        with world.losses_explained(lost), memory_explained(config, world):
            outcome = trainer.run()
    except Interrupted as stopped:
        keep("stopped", str(stopped))
        metrics.draw_curve(run)
        raise
    except PylmError as error:
        keep("failed", str(error))
        raise
    if world.is_first:
        curve = metrics.draw_curve(run)
        keep("finished", "the schedule's end", outcome)
        _report(run, trainer, outcome, curve)


@contextmanager
def memory_explained(config: Config, world: World | None = None) -> Iterator[None]:
    """Turn a device's refusal of memory into one line that says what would fit."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        device = (world or World()).device(config.train.device)
        room = available_bytes(str(device)) + held_bytes(device)
        raise TrainingError(
            f"out of memory on {device}, which has {room / GIB:.2f} GiB for this process: {what_fits(config, room)}"
        ) from None


def _report(run: Path, trainer: Trainer, outcome: Outcome, curve: Path) -> None:
    """Print the result, to stdout."""
    state, evaluation = outcome.state, outcome.evaluation
    print(f"run            {run}")
    print(
        f"steps          {state.step:,} ({state.tokens:,} tokens, {trainer.model.n_parameters():,} parameters)"
    )
    print(f"time           {duration(trainer.clock.elapsed_s())}")
    if evaluation is not None:
        part = (
            "the whole validation split" if evaluation.whole else f"{evaluation.n_tokens:,} validation tokens"
        )
        print(f"validation     {evaluation.loss:.4f} nats per token on {part}")
        print(f"bits per byte  {evaluation.bits_per_byte:.4f}")
    print(f"curve          {curve}")


def _is_over(config: Config, record: dict[str, Any], last: int | None) -> bool:
    """Whether a finished run has nothing left to do under the settings of now."""
    if config.train.budget_s:
        return bool(config.train.budget_s <= (record["schedule"]["budget_s"] or 0))
    return last is not None and last >= config.train.steps


def _clear(run: Path) -> None:
    """Delete what a run has written, but the lock that this process holds."""
    for child in run.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        elif child.name != "lock":
            child.unlink()


def _device(given: Given) -> str:
    """The device asked for, or the best there is. Raises RunError when it is not there."""
    asked = given.get("train.device")
    available = ["cpu"]
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if asked is None:
        return available[0]
    if str(asked).partition(":")[0] not in available:
        raise RunError(f"--device {asked}: not on this machine; it has {', '.join(available)}")
    return str(asked)


def _peak_memory_bytes() -> int:
    """The most this process has held: resident memory, or the GPU's where that trains."""
    if torch.cuda.is_available() and (peak := torch.cuda.max_memory_allocated()):
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
