"""Several processes train as one does: the same samples, losses and files, one voice; runs leave each other alone."""

import contextlib
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import matplotlib.figure  # noqa: F401  # here once: forked processes need not import it
import pytest
import torch
import torch.distributed.fsdp
import torch.nn.parallel
from safetensors.torch import load_file

from pylm import checkpoint
from pylm.accounting.counts import n_parameters
from pylm.accounting.memory import training_memory
from pylm.accounting.run import check_run, load_of, shards
from pylm.cli.main import main
from pylm.config import Config, TrainConfig
from pylm.errors import ConfigError
from pylm.models.config import ModelConfig

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

    def wait(self, *codes: int, limit_s: float = 240) -> list[str]:
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
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/words: made-up sentences, bytes as tokens."""
    home = tmp_path_factory.mktemp("home")
    generator = random.Random(0)
    lines = (" ".join(generator.choices(["cat", "dog", "sees", "the", "red"], k=6)) for _ in range(1500))
    (home / "words.txt").write_text("\n".join(lines) + "\n")
    pylm(home, 1, "tokenize", "words.txt", "--format", "lines", "--tokenizer", "byte")
    return home


@pytest.fixture(scope="module")
def alone(home: Path) -> str:
    """A run of 12 steps in one process."""
    pylm(home, 1, "train", "--data", "words", "--run", "alone", "--steps", "12", *TINY)
    return "alone"


def lines_of(home: Path, run: str) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (home / "runs" / run / "metrics.jsonl").read_text().splitlines()]


def assert_same(home: Path, run: str, other: str, tolerance: float = 1e-5) -> None:
    """Losses, norms and evaluations agree, step by step; the last weights too."""
    ours, theirs = (
        {line["step"]: line for line in lines_of(home, name) if "loss" in line} for name in (run, other)
    )
    assert ours.keys() == theirs.keys()
    for step, line in ours.items():
        assert line["tokens"] == theirs[step]["tokens"]
        assert line["loss"] == pytest.approx(theirs[step]["loss"], abs=tolerance)
        assert line["grad_norm"] == pytest.approx(theirs[step]["grad_norm"], abs=10 * tolerance)
    last, other_last = lines_of(home, run)[-1], lines_of(home, other)[-1]
    for name in ("val_loss", "val_bits_per_byte"):
        assert last[name] == pytest.approx(other_last[name], abs=tolerance)
    one, two = (weights(home, name) for name in (run, other))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-3, rtol=0)


def weights(home: Path, run: str) -> dict[str, torch.Tensor]:
    """Those of the last checkpoint."""
    tensors = {}
    for path in _last(home, run).glob("model*.safetensors"):
        tensors |= load_file(path)
    return tensors


def test_two_processes_lose_what_one_does_and_one_goes_on_with_their_run(home: Path, alone: str) -> None:
    said = pylm(
        home, 2, "train", "--data", "words", "--run", "both", "--steps", "4", *TINY, "--micro-batch", "2"
    )
    assert "a copy on each (DDP): batch 8 = micro-batch 2 x accumulation 2 x 2" in said
    said = pylm(home, 1, "train", "--data", "words", "--run", "both", "--steps", "8", *TINY)
    assert "resumed at step 4" in said
    pylm(home, 2, "train", "--data", "words", "--run", "both", "--steps", "12", *TINY)
    assert_same(home, "both", alone)
    assert len((home / "runs" / "both" / "samples.jsonl").read_text().splitlines()) == 4
    assert "n_processes = 2" in (home / "runs" / "both" / "config.toml").read_text()
    assert "lost" not in said


def test_a_model_in_parts_loses_what_a_whole_one_does(
    home: Path, alone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Muon, whose matrices are gathered, and several files a checkpoint; resumed by one process and back."""
    monkeypatch.setattr(checkpoint, "FILE_BYTES", 30_000)
    parts = ["--set", "train.shard=on", "--micro-batch", "2"]
    said = pylm(home, 2, "train", "--data", "words", "--run", "parts", "--steps", "4", *TINY, *parts)
    assert "a part of the model on each (FSDP2)" in said
    files = [path.name for path in (home / "runs" / "parts" / "checkpoints" / "step-4").iterdir()]
    assert any(name.startswith("model-00002-of-") for name in files), files
    pylm(home, 1, "train", "--data", "words", "--run", "parts", "--steps", "8", *TINY)
    monkeypatch.undo()
    pylm(home, 2, "train", "--data", "words", "--run", "parts", "--steps", "12", *TINY, *parts)
    assert_same(home, "parts", alone)


@pytest.mark.parametrize("n", [1, 2])
def test_what_needs_care_over_processes(home: Path, n: int) -> None:
    """Targets that are none, tied tables, recomputed blocks, updates inside the backward pass: as by one process."""
    common = [*TINY, "--optimizer", "adamw", "--steps", "3", "--set", "model.tied=true"]
    variants = {
        "bare": ["--data", "bare", "--set", "train.document_masking=true", "--micro-batch", "2"],
        "early": [
            "--set",
            "train.early_update=true",
            "--set",
            "optimizer.clip=0",
            "--micro-batch",
            str(8 // n),
        ],
        "tied-parts": ["--set", "train.activation_checkpointing=true", "--set", "train.shard=on"],
        "stacks-parts": [
            *("--preset", "stacks-577m", "--set", "model.tied=false", "--set", "model.n_stacks=2"),
            *("--set", "train.activation_checkpointing=true", "--set", "train.shard=on"),
            *("--set", "train.early_update=false", "--set", "model.dropout=0", "--set", "model.mlp_hidden=0"),
        ],
    }
    if n == 1:
        pylm(
            home,
            1,
            "tokenize",
            "words.txt",
            "--format",
            "lines",
            "--tokenizer",
            "byte",
            "--special",
            "none",
            "--out",
            "data/bare",
        )
    for name, options in variants.items():
        data = [] if "--data" in options else ["--data", "words"]
        pylm(home, n, "train", "--run", f"{name}-{n}", *common, *data, *options)
        if n == 2:
            assert_same(home, f"{name}-2", f"{name}-1")


def test_what_cannot_be_is_said_once(home: Path) -> None:
    command = ["train", "--data", "words", "--run", "refused", "--steps", "4"]
    for options, expected in (
        (["--batch-size", "9"], "train.batch_size 9 is not a multiple of the 2 processes"),
        (
            ["--batch-size", "8", "--micro-batch", "3"],
            "train.batch_size 8 is not a multiple of train.micro_batch 3 x 2 processes",
        ),
        (["--data", "nowhere"], "data/nowhere: expected a dataset folder"),
        (["--device", "abacus"], "--device abacus: not on this machine"),
        (["--set", "model.depth=3"], "--set: unknown setting 'model.depth'"),
        (["--budget", "soon"], "--budget expects a time such as"),
        (
            ["--optimizer", "adamw", "--set", "train.early_update=true", "--set", "train.shard=on",
             "--batch-size", "8", "--micro-batch", "4", "--set", "optimizer.clip=0"],
            "train.early_update needs --set train.shard=off",
        ),
    ):  # fmt: skip
        first, second = Processes(home, 2, *command, *options).wait(1, 1)
        assert f"error: {expected}" in first
        assert first.count("error: ") == 1
        assert not second


def _until_step(home: Path, run: str, step: int) -> None:
    deadline = time.monotonic() + 120  # on a busy machine torch's import alone takes long
    path = home / "runs" / run / "metrics.jsonl"
    while not (path.exists() and f'"step": {step},' in path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("parts", ["off", "on"])
def test_a_process_that_dies_ends_the_run_and_the_restart_resumes(home: Path, parts: str) -> None:
    command = ["train", "--data", "words", "--run", f"dies-{parts}", *TINY, "--set", f"train.shard={parts}"]
    both = Processes(home, 2, *command, "--steps", "100000")
    _until_step(home, f"dies-{parts}", 6)
    os.kill(both.pids[1], signal.SIGKILL)
    began = time.monotonic()
    time.sleep(0.05)
    os.kill(both.pids[0], signal.SIGTERM)  # as torchrun then does
    first, _ = both.wait(1, -signal.SIGKILL)
    assert time.monotonic() - began < 10
    (line,) = [line for line in first.splitlines() if line.startswith("error: ")]
    assert "process 0 of 2 lost another one (" in line
    assert f"runs/dies-{parts} has its last checkpoint, and the same command goes on from it" in line
    assert json.loads((home / "runs" / f"dies-{parts}" / "run.json").read_text())["status"] == "failed"
    step = json.loads((home / "runs" / f"dies-{parts}" / "checkpoints" / "last.json").read_text())["step"]
    assert f"resumed at step {step:,}" in pylm(home, 2, *command, "--steps", str(step + 2))


def test_torchrun_starts_stops_and_its_run_goes_on(home: Path) -> None:
    """One signal to torchrun, which hands it on: saved once, said once."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--shutdown-timeout=100",
        "-m",
        "--",
        "pylm",
    ]
    command = ["train", "--data", "words", "--run", "torchrun", *TINY]
    process = subprocess.Popen(
        [*torchrun, *command, "--steps", "100000"],
        cwd=home,
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        _until_step(home, "torchrun", 3)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert stderr.count("stopped: at step ") == 1, stderr
    assert "go on with: torchrun --nproc-per-node=2 -m -- pylm train --data words --run torchrun" in stderr
    assert stderr.count("data: data/words") == 1, "one of them speaks"
    assert json.loads((home / "runs" / "torchrun" / "run.json").read_text())["status"] == "stopped"
    step = json.loads((home / "runs" / "torchrun" / "checkpoints" / "last.json").read_text())["step"]
    pylm(home, 1, *command, "--steps", str(step + 1))


@pytest.mark.parametrize(("number", "code", "rank"), [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 0)])
def test_a_signal_to_one_process_stops_both_with_its_exit_code(
    home: Path, number: int, code: int, rank: int
) -> None:
    run = f"signals-{code}"
    both = Processes(home, 2, "train", "--data", "words", "--run", run, *TINY, "--steps", "100000")
    _until_step(home, run, 3)
    for _ in range(2):  # torchrun hands on what the terminal has sent already
        os.kill(both.pids[rank], number)
    first, second = both.wait(code, code)
    assert first.count("the state is saved; go on with: torchrun --nproc-per-node=2 -m -- pylm train") == 1
    assert not second


def test_two_runs_side_by_side_do_not_disturb_each_other(home: Path) -> None:
    """The files of each equal those of the same run by itself."""
    seeds = ("5", "6")
    command = ["train", "--data", "words", *TINY, "--steps", "12", "--set", "model.dropout=0.1", "--seed"]
    together = [Processes(home, 1, *command, seed, "--run", f"together-{seed}") for seed in seeds]
    for processes in together:
        processes.wait(0)
    for seed in seeds:
        pylm(home, 1, *command, seed, "--run", f"by-itself-{seed}")
        assert_equal(home, f"together-{seed}", f"by-itself-{seed}")


def test_a_run_resumed_ten_times_equals_one_never_stopped(home: Path) -> None:
    command = [
        "train",
        "--data",
        "words",
        *TINY,
        "--set",
        "model.dropout=0.1",
        "--set",
        "train.sample_every=0",
    ]
    pylm(home, 1, *command, "--run", "never-stopped", "--steps", "22")
    for step in range(2, 23, 2):
        said = pylm(home, 1, *command, "--run", "ten-times", "--steps", str(step))
        assert f"resumed at step {step - 2}" in said or step == 2
    assert_equal(home, "ten-times", "never-stopped")


def assert_equal(home: Path, run: str, other: str) -> None:
    """To the bit: the last checkpoint's tensors, and what was reported of each step."""
    for name in ("model", "optimizer"):
        one, two = (_last(home, each) / f"{name}.safetensors" for each in (run, other))
        assert one.read_bytes() == two.read_bytes()
    told = []
    for each in (run, other):
        lines = [line for line in lines_of(home, each) if "loss" in line]
        told.append([(line["step"], line["tokens"], line["loss"], line["grad_norm"]) for line in lines])
    assert told[0] == told[1]


def _last(home: Path, run: str) -> Path:
    folder = home / "runs" / run / "checkpoints"
    return folder / json.loads((folder / "last.json").read_text())["path"]


def test_a_model_is_in_parts_where_a_copy_does_not_fit() -> None:
    model = ModelConfig(vocab_size=1000, max_context=64, n_layers=12, width=512, n_heads=8)
    alone = Config("auto", model, train=TrainConfig(steps=1, batch_size=4, micro_batch=1, context=64))
    four = dataclasses.replace(alone, train=dataclasses.replace(alone.train, n_processes=4))
    needed = {
        n: training_memory(model, dataclasses.replace(load_of(four), n_shards=n)).total for n in (1, 2, 4, 8)
    }
    assert needed[1] > needed[2] > needed[4] > needed[8]
    # Weights, gradients and two moments are 16 bytes a parameter; of them a quarter stays, and what is gathered.
    assert needed[1] - needed[4] == pytest.approx(0.75 * 16 * n_parameters(model), rel=0.35)
    assert shards(four, needed[1]).train.shard == "off"
    assert shards(four, needed[1] - 1).train.shard == "on"
    assert shards(alone, needed[1] - 1).train.shard == "off"
    check_run(shards(four, needed[4]), needed[4], 1e12)
    with pytest.raises(ConfigError, match="training needs"):
        check_run(shards(four, needed[4] // 2), needed[4] // 2, 1e12)
