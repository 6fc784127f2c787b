"""A budget chooses the model by tokens a parameter and speeds measured here, once, and says why."""

import contextlib
import json
import math
import sys
from pathlib import Path
from unittest import mock

import pytest

from pylm import budget, launch
from pylm.accounting.counts import training_flops
from pylm.auto import Facts, parse_budget
from pylm.budget import REPETITION, SIZES, choose, chooses, worth
from pylm.cli.main import main
from pylm.config import Given, from_flat, read_toml
from pylm.errors import ConfigError

FACTS = Facts(10_000_000, 4096, "cpu", "data/x", "")
DEFAULT = (4, 128)  # the smallest that `pylm train` takes on a CPU
GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", {"train.budget_s": 90.0}),
        ("1h30m", {"train.budget_s": 5400.0}),
        ("2e18flops", {"train.flops": 2e18}),
        ("1.5Tflops", {"train.flops": 1.5e12}),
        ("500Mtok", {"train.tokens": 500_000_000}),
    ],
)
def test_a_budget_is_a_time_operations_or_tokens(text: str, length: Given) -> None:
    assert parse_budget(text) == length


@pytest.mark.parametrize("text", ["10", "flops", "2e18", "500M", "0tok", "m", "-5s"])
def test_another_budget_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget expects a time such as"):
        parse_budget(text)


def _chosen(
    given: Given, monkeypatch: pytest.MonkeyPatch, flops_per_s: float = 5e10
) -> tuple[Given, str, list[str]]:
    """What is chosen on a machine of this speed."""
    monkeypatch.setattr(budget, "training_flops_per_s", lambda *_: flops_per_s)
    said: list[str] = []
    settings, why = choose(given, FACTS, 64 * GIB, lambda: 4.0, said.append)
    return settings, why, said


def _size(settings: Given) -> int:
    return SIZES.index((int(settings["model.n_layers"] or 0), int(settings["model.width"] or 0)))


def test_more_time_or_a_faster_machine_never_chooses_a_smaller_model(monkeypatch: pytest.MonkeyPatch) -> None:
    by_time = [
        _size(_chosen({"train.budget_s": s}, monkeypatch)[0]) for s in (10.0, 60.0, 600.0, 6000.0, 60_000.0)
    ]
    assert by_time == sorted(by_time)
    assert by_time[-1] > by_time[0]
    by_speed = [_size(_chosen({"train.budget_s": 300.0}, monkeypatch, f)[0]) for f in (1e9, 1e11, 1e13)]
    assert by_speed == sorted(by_speed)
    assert by_speed[-1] > by_speed[0]
    by_work = [_size(_chosen({"train.flops": f}, monkeypatch)[0]) for f in (1e12, 1e15, 1e18)]
    assert by_work == sorted(by_work)
    by_tokens = [_size(_chosen({"train.tokens": n}, monkeypatch)[0]) for n in (10**5, 10**7, 10**9)]
    assert by_tokens == sorted(by_tokens)
    assert by_tokens[-1] > by_tokens[0]


def test_the_choice_is_nearest_to_twenty_tokens_a_parameter_of_all_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The slow twin tries every size; the fast one stops past the minimum."""
    for seconds in (30.0, 3000.0, 300_000.0):
        given: Given = {"train.budget_s": seconds}
        settings, why, said = _chosen(given, monkeypatch)
        distances = []
        for n_layers, width in SIZES[SIZES.index(DEFAULT) :]:
            config = budget._config(given, FACTS, budget.recipe(n_layers, width))
            token_flops = training_flops(config.model, config.train.context) / config.train.context
            n_tokens = 5e10 / token_flops * budget.STEPS_SHARE * (seconds - 4)
            ratio = worth(n_tokens, FACTS.n_train_tokens) / (12 * n_layers * width**2)
            distances.append(abs(math.log(ratio / 20)))
        assert _size(settings) - SIZES.index(DEFAULT) == distances.index(min(distances))
        assert len(said) <= len(SIZES)
        assert f"{settings['model.n_layers']} x {settings['model.width']} of {len(said)} sizes" in why


def test_no_budget_takes_a_smaller_model_than_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ({"train.budget_s": 5.0}, {"train.flops": 1e9}, {"train.tokens": 1000}):
        assert _size(_chosen(given, monkeypatch)[0]) == SIZES.index(DEFAULT)


def test_repeated_tokens_are_worth_less() -> None:
    assert worth(500.0, 1000) == 500
    assert 1900 < worth(2000.0, 1000) < 2000
    assert worth(1e9, 1000) == pytest.approx(1000 * (1 + REPETITION))


def test_what_does_not_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "training_flops_per_s", lambda *_: 1e15)
    said: list[str] = []
    settings, _ = choose({"train.budget_s": 1e5}, FACTS, GIB // 2, lambda: 0.0, said.append)
    assert SIZES.index(DEFAULT) < _size(settings) < len(SIZES) - 2
    with pytest.raises(ConfigError, match="not even 4 layers x 128 fit"):
        choose({"train.budget_s": 1e5}, FACTS, 1 << 20, lambda: 0.0, said.append)


def test_a_given_model_is_left_alone() -> None:
    assert chooses({"train.budget_s": 5.0, "train.seed": 3})
    assert chooses({"preset": "auto"})
    assert not chooses({"preset": "tiny-67k"})
    assert not chooses({"model.width": 64})


def test_the_choice_is_stored_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "words.txt").write_text("\n".join(f"the {n} cats see {n % 7} dogs" for n in range(2000)))

    def pylm(*arguments: str) -> None:
        with contextlib.chdir(tmp_path), mock.patch.object(sys, "argv", ["pylm", *arguments]):
            with pytest.raises(SystemExit) as ended:
                main(list(arguments))
            assert not ended.value.code

    pylm("tokenize", "words.txt", "--format", "lines", "--tokenizer", "byte")
    pylm("train", "--run", "chosen", "--budget", "3e10flops", "--set", "train.sample_every=0")
    run = tmp_path / "runs" / "chosen"
    record = json.loads((run / "run.json").read_text())
    assert record["decisions"][0].startswith("budget: 4 x 128 of ")
    config = from_flat(read_toml(run / "config.toml"))
    assert config.train.steps == -(-3e10 // training_flops(config.model, 128, 16))
    monkeypatch.setattr(launch, "choose", lambda *_: pytest.fail("chosen again"))
    pylm("train", "--run", "chosen", "--budget", "6e10flops", "--set", "train.sample_every=0")
    assert from_flat(read_toml(run / "config.toml")).train.steps > config.train.steps
    assert json.loads((run / "run.json").read_text())["decisions"] == record["decisions"]
