"""A run's folder: its name, its lock, and finding it again."""

import fcntl
import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pylm.config import MAY_CHANGE, Value
from pylm.errors import RunError
from pylm.files import explained
from pylm.world import n_processes

RUNS = Path("runs")


def run_name(dataset: str, given: Mapping[str, Value], dataset_sha256: str) -> str:
    """DATA-PRESET-HASH8: the hash is over what was given and may not change, so a command always names the same run."""
    fixed = {name: value for name, value in given.items() if name not in MAY_CHANGE}
    fixed["data.sha256"] = dataset_sha256
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()
    return f"{dataset}-{given.get('preset') or 'auto'}-{digest[:8]}"


def run_path(name_or_path: str) -> Path:
    """The folder of a run that may not exist yet: a path if it has a slash or exists, else a name under runs/."""
    path = Path(name_or_path)
    return path if "/" in name_or_path or path.is_dir() else RUNS / name_or_path


def resolve_run(name_or_path: str | None) -> Path:
    """The folder of an existing run; None is the one under runs/ whose checkpoint is newest. Raises RunError."""
    if name_or_path is not None:
        path = run_path(name_or_path)
        if not path.is_dir():
            known = ", ".join(sorted(child.name for child in RUNS.glob("*/"))[:8]) if RUNS.is_dir() else ""
            raise RunError(f"{path}: expected a run, found none; runs here: {known or 'none'}")
        return path
    newest = max(RUNS.glob("*/checkpoints/last.json"), key=lambda file: file.stat().st_mtime_ns, default=None)
    if newest is None:
        raise RunError(
            f"{RUNS.resolve()}: expected a run with a checkpoint, found none; train one with `pylm train`"
        )
    return newest.parents[1]


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's lock, so that one process at a time trains it. The system frees it when the process dies."""
    with explained(run):
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            raise RunError(
                f"{run}: another process ({holder or 'unknown'}) is training this run: "
                "wait for it, or name another with --run"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def command_line(arguments: list[str]) -> str:
    """The command as a user would type it again; torchrun's options beyond the processes' number are left out."""
    if n_processes() == 1:
        return shlex.join(["pylm", *arguments])
    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    machines = f"--nnodes={n_processes() // n_here} ... " if n_processes() > n_here else ""
    # Without "--" torchrun takes --run for an abbreviation of an option of its own.
    return f"torchrun {machines}--nproc-per-node={n_here} -m -- {shlex.join(['pylm', *arguments])}"
