"""`pylm train` as a user meets it: it resumes to the bit, stops on a signal, and says what is wrong in one line."""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.numpy import load_file, save_file

from pylm import precision, reporter
from pylm.accounting.run import what_fits
from pylm.cli.main import main
from pylm.clock import Clock
from pylm.config import (
    MAY_CHANGE,
    Config,
    ScheduleConfig,
    TrainConfig,
    differences,
    parse_save_every,
    setting_types,
)
from pylm.errors import ConfigError
from pylm.feed import StepBatch
from pylm.models.config import ModelConfig
from pylm.step import Stepper

TINY = (
    "--batch-size 8 --context 32 --set model.n_layers=2 --set model.width=32 --set model.n_heads=2 "
    "--set model.mlp_hidden=64 --set model.dropout=0.1 --set train.eval_every=10 --set train.eval_tokens=512 "
    "--set train.save_every=5 --set train.sample_every=20 --set train.sample_tokens=8"
).split()


@dataclass
class Result:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def pylm(cwd: Path, *arguments: str, check: int | None = 0) -> Result:
    """Run the command line in this process (torch takes seconds to import); `check` is the exit code that must come."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        mock.patch.object(sys, "argv", ["pylm", *arguments]),
        _signal_handlers_kept(),
        pytest.raises(SystemExit) as ended,
    ):
        main(list(arguments))
    result = Result(int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue())
    assert check is None or result.returncode == check, result.stdout + result.stderr
    return result


class Child:
    """A command in a process of its own, to be killed or stopped; forked, so that torch is there already."""

    def __init__(self, cwd: Path, *arguments: str, before: Callable[[], None] = lambda: None) -> None:
        self.log = cwd / f"child-{time.monotonic_ns()}.log"
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                os.chdir(cwd)
                sys.argv = ["pylm", *arguments]
                before()
                with self.log.open("w") as sys.stderr, contextlib.redirect_stdout(sys.stderr):
                    main(list(arguments))
            except SystemExit as ended:
                code = int(ended.code or 0)
            except BaseException:
                self.log.write_text(traceback.format_exc())
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> Result:
        """Wait for its end."""
        deadline = time.monotonic() + 60
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.returncode is None:
            self.kill()
            pytest.fail(f"still running: {self.log.read_text()}")
        return Result(self.returncode, "", self.log.read_text())

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def error_line(result: Result) -> str:
    """The one line of an error."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/words (made-up sentences, bytes as tokens) and an undisturbed run of 40 steps."""
    home = tmp_path_factory.mktemp("home")
    generator = random.Random(0)
    lines = (" ".join(generator.choices(["cat", "dog", "sees", "the", "red"], k=6)) for _ in range(1500))
    (home / "words.txt").write_text("\n".join(lines) + "\n")
    pylm(home, "tokenize", "words.txt", "--format", "lines", "--tokenizer", "byte")
    pylm(home, "train", "--run", "undisturbed", "--steps", "40", *TINY)
    return home


def weights(home: Path, run: str) -> bytes:
    """The last checkpoint's weights, as bytes."""
    folder = home / "runs" / run / "checkpoints"
    step = json.loads((folder / "last.json").read_text())["path"]
    return (folder / step / "model.safetensors").read_bytes()


def test_a_run_leaves_what_it_promises(home: Path) -> None:
    run = home / "runs" / "undisturbed"
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["step"] == 40
    assert record["tokens"] == 40 * 8 * 32
    assert record["elapsed_s"] > 0
    assert record["peak_memory_bytes"] > 1e6
    assert record["command"].startswith("pylm train --run undisturbed")
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 10, 20, 30, 40]
    val = [line["val_loss"] for line in lines if "val_loss" in line]
    assert val[0] == pytest.approx(5.55, abs=0.1), "an untrained model knows nothing: ln 257"
    assert val[-1] < 3.5
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [0, 20, 40]
    names = load_file(next((run / "checkpoints").glob("step-40")) / "model.safetensors").keys()
    assert not any("_orig_mod" in name for name in names)


def test_the_same_command_on_a_finished_run_does_nothing(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (home / "runs" / "undisturbed").rglob("*")}
    result = pylm(home, "train", "--run", "undisturbed", "--steps", "40", *TINY)
    assert "finished at step 40; nothing to do" in result.stderr
    after = {path: path.stat().st_mtime_ns for path in (home / "runs" / "undisturbed").rglob("*")}
    assert {p: t for p, t in after.items() if p.name != "lock"} == {
        p: t for p, t in before.items() if p.name != "lock"
    }


def test_killed_at_five_random_moments_the_weights_are_the_same_to_the_bit(home: Path) -> None:
    command = ["train", "--run", "killed", "--steps", "40", *TINY]
    generator = random.Random(1)
    metrics = home / "runs" / "killed" / "metrics.jsonl"
    kills = 0
    while kills < 5:
        child = Child(home, *command)
        size_before = metrics.stat().st_size if metrics.exists() else 0
        while child.poll() is None:  # let it train for a moment, then kill
            if metrics.exists() and metrics.stat().st_size != size_before:
                time.sleep(generator.uniform(0, 0.12))
                break
            time.sleep(0.002)
        if child.poll() is not None:
            break  # it finished before it could be killed
        child.kill()
        kills += 1
    assert kills >= 1
    pylm(home, *command)
    assert weights(home, "killed") == weights(home, "undisturbed")
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if '"loss"' in line]
    assert steps == [1, 10, 20, 30, 40]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_command_it_prints_resumes(home: Path, number: int, code: int) -> None:
    name = f"stopped-{code}"
    command = ["train", "--run", name, "--steps", "40", *TINY, "--set", "train.log_every=1"]
    child = Child(home, *command)
    metrics = home / "runs" / name / "metrics.jsonl"
    while not (metrics.exists() and '"step": 1,' in metrics.read_text()):
        time.sleep(0.002)
        assert child.poll() is None, child.log.read_text()
    os.kill(child.pid, number)
    result = child.wait()
    assert result.returncode == code, result.stderr
    assert "the state is saved; go on with: pylm train --run" in result.stderr
    record = json.loads((home / "runs" / name / "run.json").read_text())
    assert record["status"] == "stopped"
    assert 0 < record["step"] < 40
    pylm(home, *command)
    assert weights(home, name) == weights(home, "undisturbed")


def test_more_steps_go_on_with_a_finished_run(home: Path) -> None:
    pylm(home, "train", "--run", "longer", "--steps", "10", *TINY)
    result = pylm(home, "train", "--run", "longer", "--steps", "20", *TINY)
    assert "resumed at step 10" in result.stderr
    assert json.loads((home / "runs" / "longer" / "run.json").read_text())["step"] == 20


def test_another_micro_batch_sees_the_same_samples(home: Path) -> None:
    arguments = [item for item in TINY if item != "model.dropout=0.1"]
    arguments = [*TINY[: TINY.index("model.dropout=0.1") - 1], *TINY[TINY.index("model.dropout=0.1") + 1 :]]
    arguments += ["--set", "schedule.kind=constant", "--warmup", "0"]  # so that the length changes no rate
    for name, micro in (("micro-8", "8"), ("micro-2", "2")):
        pylm(home, "train", "--run", name, "--steps", "15", *arguments, "--micro-batch", micro)
    pylm(home, "train", "--run", "micro-8-4", "--steps", "6", *arguments, "--micro-batch", "8")
    pylm(home, "train", "--run", "micro-8-4", "--steps", "15", *arguments, "--micro-batch", "4")
    for other in ("micro-2", "micro-8-4"):
        lines = [_losses(home, name) for name in ("micro-8", other)]
        assert [step for step, _ in lines[0]] == [step for step, _ in lines[1]]
        for (_, first), (_, second) in zip(*lines, strict=True):
            assert first == pytest.approx(second, abs=1e-5)


def _losses(home: Path, run: str) -> list[tuple[int, float]]:
    lines = (home / "runs" / run / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines) if "loss" in line]


def test_a_changed_setting_is_refused_with_both_values(home: Path) -> None:
    result = pylm(home, "train", "--run", "undisturbed", "--steps", "80", "--lr", "0.5", check=1)
    assert "optimizer.lr: the run has 0.02, this command says 0.5" in error_line(result)


def test_a_budget_ends_on_time(home: Path) -> None:
    began = time.monotonic()
    pylm(home, "train", "--run", "budget", "--budget", "8s", *TINY)
    assert time.monotonic() - began < 15
    record = json.loads((home / "runs" / "budget" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["elapsed_s"] == pytest.approx(8, abs=4)  # on a busy machine; seconds are shown by the demo
    assert "nothing to do" in pylm(home, "train", "--run", "budget", "--budget", "8s", *TINY).stderr


def test_the_same_options_name_the_same_run(home: Path) -> None:
    for _ in range(2):
        result = pylm(home, "train", "--steps", "2", *TINY, "--seed", "5")
    names = [path.name for path in (home / "runs").glob("words-auto-*")]
    assert len(names) == 1
    assert names[0] in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "data/nowhere: expected a dataset folder, found none"),
        (["--preset", "llama-1m"], "preset 'llama-1m' is unknown; expected one of"),
        (["--set", "model.n_heads=3"], "model.n_heads 3 does not divide model.width 128"),
        (["--set", "model.depth=3"], "unknown setting 'model.depth'"),
        (["--context", "100000"], "tokens, a window of context 100000 needs 100001"),
        (
            ["--batch-size", "10", "--micro-batch", "4"],
            "train.batch_size 10 is not a multiple of train.micro_batch 4",
        ),
        (["--budget", "soon"], "--budget expects a time such as 90s"),
        (["--budget", "1m", "--steps", "5"], "--budget stands alone"),
        (["--device", "cuda:7"], "--device cuda:7"),
        (["--set", "model.vocab_size=5"], "model.vocab_size 5 does not match the dataset's tokenizer"),
        (["--config", "none.toml"], "none.toml: expected a config file, found none"),
        (["--lr", "0"], "optimizer.lr must be above 0"),
    ],
)
def test_bad_options_end_in_one_line(home: Path, arguments: list[str], message: str) -> None:
    assert message in error_line(pylm(home, "train", "--steps", "1", *arguments, check=1))


def test_a_second_process_in_one_run_is_refused(home: Path) -> None:
    command = ["train", "--run", "twice", "--steps", "100000", *TINY]
    first = Child(home, *command)
    try:
        while not (home / "runs" / "twice" / "metrics.jsonl").exists():
            time.sleep(0.002)
            assert first.poll() is None, first.log.read_text()
        assert f"another process ({first.pid}) is training this run" in error_line(
            pylm(home, *command, check=1)
        )
    finally:
        first.kill()


def _damaged_run(home: Path, name: str) -> Path:
    pylm(home, "train", "--run", name, "--steps", "2", *TINY)
    return next((home / "runs" / name / "checkpoints").glob("step-2"))


def test_a_checkpoint_of_another_shape_names_the_tensor(home: Path) -> None:
    folder = _damaged_run(home, "reshaped")
    config = home / "runs" / "reshaped" / "config.toml"
    config.write_text(config.read_text().replace("mlp_hidden = 64", "mlp_hidden = 96"))
    line = error_line(pylm(home, "train", "--run", "reshaped", "--steps", "4", check=1))
    assert str(folder.relative_to(home)) in line
    assert ".mlp." in line
    assert "96" in line or "192" in line
    assert "64" in line or "128" in line
    assert "another shape" in line


def test_a_damaged_checkpoint_is_refused(home: Path) -> None:
    folder = _damaged_run(home, "damaged")
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] + 1
    save_file(tensors, folder / "model.safetensors")
    assert "damaged: expected sha256" in error_line(
        pylm(home, "train", "--run", "damaged", "--steps", "4", check=1)
    )


def test_a_newer_checkpoint_is_refused(home: Path) -> None:
    folder = _damaged_run(home, "newer")
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"version": 99}))
    line = error_line(pylm(home, "train", "--run", "newer", "--steps", "4", check=1))
    assert "written by a newer pylm" in line


def test_another_tokenizer_in_the_dataset_is_refused(home: Path) -> None:
    pylm(home, "tokenize", "words.txt", "--format", "lines", "--vocab-size", "300", "--out", "data/other")
    pylm(home, "train", "--data", "data/words", "--run", "tokenizers", "--steps", "2", *TINY)
    line = error_line(
        pylm(home, "train", "--data", "data/other", "--run", "tokenizers", "--steps", "4", *TINY, check=1)
    )
    assert "data.sha256" in line


def test_a_full_disk_is_one_line_and_loses_nothing(home: Path) -> None:
    pylm(home, "train", "--run", "full", "--steps", "5", *TINY)
    kept = weights(home, "full")
    # A limit on the size of files stands for a disk without room: the system refuses the write in the same way.
    limit = (60_000, 60_000)
    child = Child(
        home,
        *("train", "--run", "full", "--steps", "10", *TINY),
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    result = child.wait()
    assert result.returncode == 1
    assert "cannot be written" in error_line(result)
    assert weights(home, "full") == kept
    assert not list((home / "runs" / "full" / "checkpoints").glob(".*"))
    pylm(home, "train", "--run", "full", "--steps", "10", *TINY)


def test_a_run_of_steps_without_finite_gradients_stops_at_the_last_good_checkpoint(home: Path) -> None:
    arguments = ["--set", "optimizer.lr=1e30", "--set", "optimizer.name=adamw", "--set", "train.save_every=3"]
    result = pylm(home, "train", "--run", "diverged", "--steps", "60", *TINY, *arguments, check=1)
    line = error_line(result)
    assert "training has diverged" in line
    assert "the last good checkpoint is step 0 of" in line
    assert "steps skipped since the last report: the loss or a gradient was not finite" in result.stderr
    run = home / "runs" / "diverged"
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-0"]
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(line.get("skipped", 0) for line in lines) >= 9
    assert not any(isinstance(value, float) and value != value for line in lines for value in line.values())


def _checkpoints(home: Path, run: str) -> set[int]:
    return {int(path.name[5:]) for path in (home / "runs" / run / "checkpoints").glob("step-*")}


def test_the_last_checkpoints_and_the_best_are_kept(home: Path) -> None:
    arguments = [*TINY, "--save-every", "3", "--keep", "3"]
    pylm(home, "train", "--run", "kept", "--steps", "20", *arguments, "--set", "train.eval_every=10")
    best = json.loads((home / "runs" / "kept" / "checkpoints" / "best.json").read_text())["step"]
    assert _checkpoints(home, "kept") == {15, 18, 20, best}
    pylm(home, "train", "--run", "kept", "--steps", "22", "--keep", "1")
    assert len(_checkpoints(home, "kept")) <= 2


def test_a_checkpoint_that_nothing_points_to_is_not_gone_on_with(home: Path) -> None:
    pylm(home, "train", "--run", "unpointed", "--steps", "4", *TINY)
    folder = home / "runs" / "unpointed" / "checkpoints"
    (folder / "step-4").rename(
        folder / "step-9"
    )  # as if killed between the folder's renaming and the pointer's
    (folder / "step-9").joinpath("more").touch()
    pointer = json.loads((folder / "last.json").read_text())
    shutil.copytree(folder / "step-9", folder / "step-4")
    (folder / "last.json").write_text(json.dumps(pointer))
    assert "resumed at step 4" in pylm(home, "train", "--run", "unpointed", "--steps", "6", *TINY).stderr
    assert 9 not in _checkpoints(home, "unpointed")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", {"train.save_every": 500}),
        ("10m", {"train.save_every": 0, "train.save_minutes": 10.0}),
        ("0.5ep", {"train.save_every": 0, "train.save_epochs": 0.5}),
    ],
)
def test_saves_go_by_steps_minutes_or_epochs(text: str, expected: dict[str, float]) -> None:
    assert parse_save_every(text) == expected


@pytest.mark.parametrize("text", ["0", "1.5", "10s", "soon", "0m"])
def test_other_intervals_of_saves_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--save-every expects steps"):
        parse_save_every(text)


def test_a_save_is_due_when_a_minute_or_an_epoch_has_passed() -> None:
    settings = TrainConfig(steps=100, save_every=0, save_minutes=2.0, save_epochs=0.5)
    clock = Clock(settings, ScheduleConfig(), 0.0, time.monotonic())
    assert not clock.save_due(7, 0.0, (100.0, 0.1), (119.0, 0.4))
    assert clock.save_due(7, 0.0, (100.0, 0.1), (120.0, 0.1))
    assert clock.save_due(7, 0.0, (100.0, 0.4), (101.0, 0.6))


def test_two_datasets_are_mixed_and_resumed(home: Path) -> None:
    (home / "more.txt").write_text("a bird sings\n" * 400)
    pylm(home, "tokenize", "more.txt", "--format", "lines", "--tokenizer", "byte")
    both = ["--data", "words=3", "--data", "more=1"]
    result = pylm(home, "train", *both, "--run", "mixed", "--steps", "12", *TINY)
    assert "data: data/words, data/more" in result.stderr
    pylm(home, "train", *both, "--run", "mixed-stopped", "--steps", "6", *TINY)
    pylm(home, "train", *both, "--run", "mixed-stopped", "--steps", "12", *TINY)
    first, second = (
        json.loads((home / "runs" / name / "run.json").read_text()) for name in ("mixed", "mixed-stopped")
    )
    assert first["dataset_sha256"] == second["dataset_sha256"]
    assert weights(home, "mixed") != weights(home, "undisturbed")
    line = error_line(
        pylm(
            home, "train", "--data", "words=2", "--data", "more=1", "--run", "mixed", "--steps", "14", check=1
        )
    )
    assert "data.weights: the run has '3,1', this command says '2,1'" in line
    line = error_line(pylm(home, "train", "--data", "words=2", "--data", "more", "--steps", "1", check=1))
    assert "give every dataset a weight, or none" in line


def test_documents_and_noise_train_and_resume(home: Path) -> None:
    for name, options in (
        ("documents", ["train.document_masking=true"]),
        ("noise", ["train.shuffle_tokens=true", "train.mask_random=0.2"]),
    ):
        settings = [item for option in options for item in ("--set", option)]
        pylm(home, "train", "--run", name, "--steps", "10", *TINY, *settings)
        pylm(
            home,
            "train",
            "--run",
            f"{name}-2",
            "--steps",
            "10",
            *TINY,
            *settings,
            "--micro-batch",
            "2",
            "--dropout",
            "0",
        )
        line = json.loads((home / "runs" / name / "metrics.jsonl").read_text().splitlines()[-1])
        assert line["val_loss"] < 5.5
    refused = pylm(
        home, "train", "--run", "documents", "--steps", "20", "--set", "train.document_masking=false", check=1
    )
    assert "train.document_masking: the run has True, this command says False" in error_line(refused)


def test_metrics_have_speed_memory_and_norm(home: Path) -> None:
    lines = [
        json.loads(line)
        for line in (home / "runs" / "undisturbed" / "metrics.jsonl").read_text().splitlines()
    ]
    for line in lines:
        if "loss" in line:
            assert 0 < line["mfu"] < 1
            assert line["tokens_per_s"] > 0
            assert line["memory_bytes"] > 10**7
            assert line["grad_norm"] > 0


def test_tensorboard_gets_the_same_numbers(home: Path) -> None:
    pytest.importorskip("tensorboard")
    pylm(home, "train", "--run", "board", "--steps", "2", *TINY, "--set", "train.tensorboard=true")
    assert list((home / "runs" / "board" / "tensorboard").glob("events*"))


def test_tensorboard_that_is_not_there_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    arguments = ["--run", "no-board", "--steps", "2", *TINY, "--set", "train.tensorboard=true"]
    assert "TensorBoard is not installed" in error_line(pylm(home, "train", *arguments, check=1))


def test_bfloat16_is_refused_where_the_processor_has_none(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: False)
    command = ["train", "--run", "low", "--steps", "2", *TINY, "--dtype"]
    assert "has no instructions for it" in error_line(pylm(home, *command, "bfloat16", check=1))
    assert "train.dtype float16 needs a GPU" in error_line(pylm(home, *command, "float16", check=1))
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: True)
    seconds = {torch.float32: 1.0, torch.bfloat16: 3.0}
    monkeypatch.setattr(precision, "_matmul_s", seconds.__getitem__)
    assert "is 3.0 times slower than in float32" in error_line(pylm(home, *command, "bfloat16", check=1))
    seconds[torch.bfloat16] = 0.5
    monkeypatch.setattr(reporter, "matmul_flops_per_s", lambda *_: 1e9)  # seconds, without the instructions
    result = pylm(home, *command, "bfloat16")
    assert "bfloat16: a matrix product on this processor is 2.0 times as fast" in result.stderr
    assert "nothing to do" in pylm(home, "train", "--run", "low", "--steps", "2").stderr
    seconds[torch.bfloat16] = 3.0  # as if on another machine
    assert "--dtype out" in error_line(pylm(home, "train", "--run", "low", "--steps", "4", check=1))
    pylm(home, "train", "--run", "low", "--steps", "4", "--dtype", "float32")


@pytest.mark.skipif(not precision.processor_has_bfloat16(), reason="the processor has no bfloat16")
def test_bfloat16_on_a_cpu_resumes_to_the_bit(home: Path) -> None:
    """Also with bfloat16's own attention, which a model without dropout has."""
    for run, lengths in (("low-whole", ["8"]), ("low-parts", ["5", "8"])):
        for steps in lengths:
            options = [
                "--steps",
                steps,
                "--dtype",
                "bfloat16",
                "--dropout",
                "0",
                "--set",
                "schedule.kind=constant",
            ]
            result = pylm(home, "train", "--run", run, *TINY, *options, "--set", "schedule.warmup=1")
            assert "as fast as in float32" in result.stderr
    assert weights(home, "low-whole") == weights(home, "low-parts")


def test_a_step_has_the_rate_that_is_written_for_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is set before the step, and the first one is not the peak."""
    used = []
    take = Stepper.step

    def step(self: Stepper, batch: StepBatch) -> None:
        used.append(self.optimizers[-1].param_groups[0]["lr"])
        take(self, batch)

    monkeypatch.setattr(Stepper, "step", step)
    pylm(
        home, "train", "--run", "rates", "--steps", "12", *TINY, "--set", "train.log_every=1", "--lr", "0.01"
    )
    lines = map(json.loads, (home / "runs" / "rates" / "metrics.jsonl").read_text().splitlines())
    assert used == pytest.approx([line["learning_rate"] for line in lines if "loss" in line])
    assert 0 < used[0] < 0.01
    assert max(used) <= 0.01


def test_out_of_memory_says_what_would_fit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"
        )

    monkeypatch.setattr(Stepper, "step", refuse)
    line = error_line(pylm(home, "train", "--run", "memory", "--steps", "2", *TINY, check=1))
    assert "out of memory on cpu, which has" in line
    assert "choose a smaller model" in line, "of this one, the process itself is the most"
    large = Config(
        "auto", ModelConfig(), train=TrainConfig(steps=1, batch_size=64, micro_batch=64, context=1024)
    )
    assert what_fits(large, 16 << 30).startswith("--micro-batch 8 needs 9.71")
    assert "--micro-batch 32" in what_fits(large, 1 << 40), "the estimate was too low: less than it"
    monkeypatch.setattr(Stepper, "step", lambda *_: (_ for _ in ()).throw(RuntimeError("another")))
    with pytest.raises(RuntimeError, match="another"), contextlib.chdir(home):
        main(["train", "--run", "memory-2", "--steps", "2", *TINY])


def test_an_early_update_names_what_it_needs(home: Path) -> None:
    command = ["train", "--run", "early", "--steps", "2", *TINY, "--set", "train.early_update=true"]
    refused = ["--optimizer", "muon", "--micro-batch", "4", "--set", "optimizer.clip=1"]
    line = error_line(pylm(home, *command, *refused, check=1))
    for part in ("no accumulation", "optimizer.clip=0", "--optimizer adamw"):
        assert part in line
    pylm(home, *command, "--optimizer", "adamw", "--set", "optimizer.clip=0")


# On resume these may change (the surface's page); of each other setting, another value.
MAY_NOT_CHANGE = {
    "preset": "gpt2-124m",
    "train.batch_size": 16,
    "train.context": 16,
    "train.seed": 1,
    "train.document_masking": True,
    "train.shuffle_tokens": True,
    "train.mask_random": 0.5,
    "data.weights": "1,2",
    "optimizer.name": "adamw",
    "schedule.kind": "cosine",
    "model.family": "tiny",
    "model.embedding_norm": False,
}


def test_what_a_resumed_run_may_not_change_is_refused_with_both_values() -> None:
    stored = Config("auto", ModelConfig(), train=TrainConfig(steps=1)).flat()
    fixed = {name for name in setting_types() if name not in MAY_CHANGE}
    assert fixed >= MAY_NOT_CHANGE.keys()
    assert {name.partition(".")[0] for name in MAY_CHANGE} == {"train", "model", "data"}
    assert {name for name in MAY_CHANGE if name.startswith("model.")} == {"model.dropout"}
    for name in fixed:
        old = stored.get(name)
        new = MAY_NOT_CHANGE.get(name, (old + 1) if isinstance(old, (int, float)) else f"not {old}")
        new = (not old) if isinstance(old, bool) else new
        new = "other" if new == old else new
        (line,) = differences({name: new}, stored)
        assert line == f"{name}: the run has {old!r}, this command says {new!r}"
    for name in MAY_CHANGE:
        assert not differences({name: "anything"}, stored)


def test_what_may_change_on_resume_does(home: Path) -> None:
    pylm(home, "train", "--run", "changed", "--steps", "4", *TINY)
    changes = (
        "--steps 6 --micro-batch 2 --dropout 0 --device cpu --dtype float32 --compile off --save-every 2 --keep 2 "
        "--set train.eval_every=2 --set train.log_every=1 --set train.activation_checkpointing=true"
    ).split()
    assert "resumed at step 4" in pylm(home, "train", "--run", "changed", *changes).stderr
    config = (home / "runs" / "changed" / "config.toml").read_text()
    for line in (
        "micro_batch = 2",
        "dropout = 0.0",
        'compile = "off"',
        "keep = 2",
        "activation_checkpointing = true",
    ):
        assert line in config
