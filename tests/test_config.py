"""Settings check themselves, say what is wrong, and come back from TOML as they went."""

from pathlib import Path

import pytest

from pylm.config import (
    Config,
    TrainConfig,
    check_given,
    differences,
    from_flat,
    parse_set,
    read_toml,
    write_toml,
)
from pylm.errors import ConfigError


def test_toml_round_trip(tmp_path: Path) -> None:
    config = from_flat(
        {"preset": "auto", "train.steps": 10, "optimizer.lr": 3e-05, "data.path": 'a "b" \\ c\n\x7f ü'}
    )
    (tmp_path / "config.toml").write_text(write_toml(config), encoding="utf-8")
    assert from_flat(read_toml(tmp_path / "config.toml")) == config


def test_an_unknown_setting_suggests_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"--set: unknown setting 'optimizer.lrr'; did you mean 'optimizer.lr'"
    ):
        parse_set(("optimizer.lrr=1",))
    with pytest.raises(ConfigError, match=r"did you mean 'model.n_layers'"):
        parse_set(("n_layers=1",))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("train.steps=ten", r"train.steps expects int, found 'ten'"),
        ("train.steps=1.5", r"train.steps expects int, found 1.5"),
        ("train.steps=true", r"train.steps expects int, found True"),
        ("optimizer.lr=nan", r"optimizer.lr expects a finite number"),
        ("optimizer.lr", r"--set expects key=value"),
    ],
)
def test_a_value_of_another_type_is_refused(item: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_set((item,))


def test_an_integer_is_a_float_where_one_is_meant() -> None:
    assert check_given({"optimizer.clip": 1}, "here") == {"optimizer.clip": 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer.lr": 0.0}, r"optimizer.lr must be above 0, found 0.0"),
        ({"schedule.kind": "steps"}, r"schedule.kind must be one of cosine"),
        ({"train.steps": 0}, r"train.steps and train.budget_s must be exactly one"),
        (
            {"train.batch_size": 10, "train.micro_batch": 4},
            r"batch_size 10 is not a multiple of train.micro_batch 4",
        ),
        ({"train.context": 2048}, r"train.context 2048 exceeds model.max_context 1024"),
    ],
)
def test_impossible_settings_name_their_numbers(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_flat({"train.steps": 1, **settings})  # type: ignore[dict-item]


def test_differences_name_the_field_and_both_values_and_allow_the_stop() -> None:
    stored = from_flat({"train.steps": 10, "optimizer.lr": 0.001}).flat()
    assert differences({"train.steps": 20, "model.dropout": 0.1}, stored) == []
    assert differences({"optimizer.lr": 0.002}, stored) == [
        "optimizer.lr: the run has 0.001, this command says 0.002"
    ]


def test_a_config_file_must_be_there_and_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a config file, found none"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 1")
    with pytest.raises(ConfigError, match="expected TOML"):
        read_toml(tmp_path / "bad.toml")


def test_accumulation_is_batch_over_micro_batch() -> None:
    assert TrainConfig(steps=1, batch_size=12, micro_batch=4).accumulation == 3
    assert isinstance(from_flat({"train.steps": 1}), Config)
