"""`pylm generate` on a run's folder: text to stdout, counts to stderr, seeds that repeat, errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pylm import checkpoint
from pylm.checkpoint import State
from pylm.cli import main
from pylm.config import from_flat, write_toml
from pylm.models.build import build_model
from pylm.optim import build_optimizers
from pylm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained run of a byte tokenizer, with a last and a best checkpoint."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    path.mkdir()
    config = from_flat(
        {"model.vocab_size": 257, "model.n_layers": 1, "model.width": 16, "model.n_heads": 2}
        | {"model.max_context": 32, "train.context": 16, "train.steps": 1}
    )
    (path / "config.toml").write_text(write_toml(config))
    Tokenizer.byte().save(path / "tokenizer.json")
    model = build_model(config.model)
    optimizers = build_optimizers(model, config.optimizer)
    checkpoint.save(path, State(step=3), model, optimizers)
    checkpoint.point(path, "best", 3)
    checkpoint.save(path, State(step=7), model, optimizers)
    return path


def generate(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main.main(["generate", *arguments])
    captured = capfd.readouterr()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, captured.out, captured.err


def test_text_goes_to_stdout_and_counts_to_stderr(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = (str(run), "--prompt", "Once", "--max-tokens", "40", "--seed", "5", "--ignore-end-of-text")
    code, out, err = generate(capfd, *options)
    assert code == 0
    assert out.startswith("Once")
    assert f"{run}: best checkpoint, step 3, context 16, seed 5" in err
    assert "prompt 4, new 40, total 44 tokens, ended by max tokens" in err
    assert generate(capfd, *options)[1] == out
    assert "last checkpoint, step 7" in generate(capfd, *options, "--checkpoint", "last")[2]


def test_without_a_seed_the_one_drawn_is_told_and_repeats(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, out, err = generate(capfd, str(run), "--max-tokens", "9")
    seed = err.split("seed ")[1].split(",")[0]
    assert generate(capfd, str(run), "--max-tokens", "9", "--seed", seed)[1] == out


def test_samples_and_top_probabilities(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = (
        "--max-tokens",
        "3",
        "--samples",
        "2",
        "--top-probabilities",
        "4",
        "--ignore-end-of-text",
        "--seed",
        "1",
    )
    _, out, err = generate(capfd, str(run), *options)
    assert "--- sample 1 of 2\n" in out
    assert "--- sample 2 of 2\n" in out
    rows = [line for line in out.splitlines() if "  of  " in line]
    assert len(rows) == 6
    chosen, best = rows[0].split("  of  ")
    json.loads(chosen.rpartition(" ")[0])
    assert [float(item.rpartition(" ")[2]) for item in best.split("  ")] == pytest.approx(
        [1 / 257] * 4, rel=0.5
    )
    assert "sample 2: prompt 1, new 3, total 4 tokens" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "nowhere: expected a run, found none"),
        (["RUN", "--temperature", "-1"], "temperature must be 0 (greedy) or more, found -1.0"),
        (["RUN", "--top-p", "0"], "top_p must be above 0"),
        (["RUN", "--max-tokens", "0"], "max_tokens must be at least 1, found 0"),
    ],
)
def test_errors_are_one_line(
    run: Path, options: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = generate(capfd, *(str(run) if option == "RUN" else option for option in options))
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert message in err


def test_an_error_after_some_text_stands_on_a_line_of_its_own(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--no-repeat-ngram", "1", "--max-tokens", "400", "--ignore-end-of-text", "--top-k", "0")
    code, out, err = generate(capfd, str(run), "--prompt", "a", *options)
    assert code == 1
    assert out.startswith("a")
    assert out.endswith("\n")
    assert "no_repeat_ngram = 1 leaves none of the 257 tokens" in err
