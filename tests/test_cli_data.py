"""`pylm data`: make and score agree, on stdout and through files."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pylm.cli.data import command
from pylm.made_up import simple


def run(*arguments: str, text: str | None = None) -> Result:
    result = CliRunner().invoke(command, arguments, input=text)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("language", ["simple", "addition"])
def test_what_is_made_is_all_right(language: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    run("make", language, "--count", "30", "--seed", "4", "--out", str(path))
    assert path.read_text() == run("make", language, "--count", "30", "--seed", "4").stdout
    found = json.loads(run("score", language, str(path), "--json").stdout)
    assert (found["n_units"], found["share_right"]) == (30, 1.0)


def test_score_reads_stdin_and_prints_shares_and_best_losses() -> None:
    lines = run("score", "simple", "-", text=simple.make(3, 0) + "bbbb;\n").stdout.splitlines()
    assert lines[:3] == ["4 words", "3 well-formed (75.0%)", "3 valid (75.0%)"]
    assert lines[3] == "best possible loss, whole history: 1.2413 nats a character"
    lines = run("score", "addition", text="1 + 1 = 3;\n").stdout.splitlines()
    assert lines[2:] == [
        "0 right sums (0.0%)",
        "best possible loss, adding: 0.6445 nats a character",
        "best possible loss, not adding: 1.0017 nats a character",
    ]
