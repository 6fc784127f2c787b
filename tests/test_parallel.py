"""Several processes train as one does: the same samples, the same losses, one voice, one set of files."""

import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pylm.cli.main import main

TINY = (
    "--batch-size 8 --context 32 --set model.n_layers=2 --set model.width=32 --set model.n_heads=2 "
    "--set model.mlp_hidden=64 --set train.eval_every=10 --set train.eval_tokens=512 --set train.save_every=5 "
    "--set train.sample_every=20 --set train.sample_tokens=8 --set train.log_every=1 --warmup 2 "
    "--set schedule.kind=constant --set optimizer.clip=0.5"
).split()


class Processes:
    """`n` processes of one command, as torchrun would start them; forked, so that torch is there already."""

    def __init__(self, cwd: Path, n: int, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.logs = [cwd / f"process-{time.monotonic_ns()}-{rank}.log" for rank in range(n)]
        self.pids = [self._fork(cwd, rank, n, port, arguments) for rank in range(n)]

    def _fork(self, cwd: Path, rank: int, n: int, port: int, arguments: tuple[str, ...]) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 99
        try:
            os.chdir(cwd)
            sys.argv = ["pylm", *arguments]
            names = {
                "RANK": rank,
                "WORLD_SIZE": n,
                "LOCAL_RANK": rank,
                "LOCAL_WORLD_SIZE": n,
                "MASTER_PORT": port,
            }
            os.environ |= {name: str(value) for name, value in names.items()}
            os.environ["MASTER_ADDR"] = "127.0.0.1"
            with self.logs[rank].open("w") as sys.stderr, contextlib.redirect_stdout(sys.stderr):
                main(list(arguments))
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            self.logs[rank].write_text(traceback.format_exc())
        finally:
            os._exit(code)

    def wait(self, *codes: int, limit_s: float = 60) -> list[str]:
        """What each said; `codes` are the exit codes that must come."""
        deadline = time.monotonic() + limit_s
        found: list[int | None] = [None] * len(self.pids)
        while None in found and time.monotonic() < deadline:
            for rank, pid in enumerate(self.pids):
                if found[rank] is None and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    found[rank] = os.waitstatus_to_exitcode(ended[1])
            time.sleep(0.01)
        for rank, pid in enumerate(self.pids):
            if found[rank] is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        said = [log.read_text() for log in self.logs]
        assert found == list(codes), "\n".join(said)
        return said


def pylm(home: Path, n: int, *arguments: str) -> str:
    """Run the command line in n processes; what the first said. The others must say nothing."""
    first, *others = Processes(home, n, *arguments).wait(*([0] * n))
    assert not any(others), others
    return first


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data/words (made-up sentences, bytes as tokens) and `alone`, 12 steps in one process."""
    home = tmp_path_factory.mktemp("home")
    generator = random.Random(0)
    lines = (" ".join(generator.choices(["cat", "dog", "sees", "the", "red"], k=6)) for _ in range(1500))
    (home / "words.txt").write_text("\n".join(lines) + "\n")
    pylm(home, 1, "tokenize", "words.txt", "--format", "lines", "--tokenizer", "byte")
    pylm(home, 1, "train", "--run", "alone", "--steps", "12", *TINY)
    return home


def lines_of(home: Path, run: str) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (home / "runs" / run / "metrics.jsonl").read_text().splitlines()]


def assert_same(home: Path, run: str, other: str = "alone", tolerance: float = 1e-5) -> None:
    """Losses, norms and evaluations agree, step by step; the last weights too."""
    ours, theirs = lines_of(home, run), lines_of(home, other)
    assert [(line["step"], line["tokens"]) for line in ours] == [
        (line["step"], line["tokens"]) for line in theirs
    ]
    for our, their in zip(ours, theirs, strict=True):
        for name in ("loss", "val_loss", "val_bits_per_byte", "grad_norm"):
            assert our.get(name) == pytest.approx(their.get(name), abs=tolerance), (our, their)
    one, two = (weights(home, name) for name in (run, other))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-3, rtol=0)


def weights(home: Path, run: str) -> dict[str, torch.Tensor]:
    """Those of the last checkpoint."""
    folder = home / "runs" / run / "checkpoints"
    return load_file(folder / json.loads((folder / "last.json").read_text())["path"] / "model.safetensors")


def test_two_processes_lose_what_one_does_and_one_goes_on_with_their_run(home: Path) -> None:
    said = pylm(home, 2, "train", "--run", "both", "--steps", "4", *TINY, "--micro-batch", "2")
    assert "a copy on each (DDP): batch 8 = micro-batch 2 x accumulation 2 x 2" in said
    said = pylm(home, 1, "train", "--run", "both", "--steps", "8", *TINY)
    assert "resumed at step 4" in said
    pylm(home, 2, "train", "--run", "both", "--steps", "12", *TINY)
    assert_same(home, "both")
    samples = (home / "runs" / "both" / "samples.jsonl").read_text()
    assert len(samples.splitlines()) == 4, "one for each start and end"
    assert "n_processes = 2" in (home / "runs" / "both" / "config.toml").read_text()
