"""Speed is tokens by elapsed time without pauses, and MFU counts operations against a peak it names."""

import json
from pathlib import Path

import pytest
import torch

from pylm import reporter
from pylm.accounting.counts import training_flops
from pylm.accounting.devices import GPUS, gpu_called
from pylm.checkpoint import State
from pylm.clock import Clock
from pylm.config import Config, ScheduleConfig, TrainConfig
from pylm.models.config import ModelConfig
from pylm.progress import ProgressLine
from pylm.step import Report


def test_speed_and_mfu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(reporter, "matmul_flops_per_s", lambda device, dtype: 1e9)
    model = ModelConfig(vocab_size=100, max_context=64, n_layers=2, width=32, n_heads=2)
    config = Config("auto", model, train=TrainConfig(steps=100, context=64))
    clock = Clock(config.train, ScheduleConfig(), 0.0, 0.0)
    told = reporter.Reporter(
        tmp_path, config, State(step=3, tokens=5000), ProgressLine(), torch.device("cpu")
    )
    now = 108.0
    told.paused(6.0)
    told.steps(State(step=5, tokens=6000), Report(3.0, 1.0, 0, 0), 1e-3, clock)
    now = 110.0
    told.steps(State(step=6, tokens=6200), Report(float("nan"), float("inf"), 1, 1), 1e-3, clock)
    told.close()
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first["tokens_per_s"] == 500.0
    assert first["mfu"] == pytest.approx(500 * training_flops(model, 64) / 64 / 1e9, abs=1e-4)
    assert second["tokens_per_s"] == 100.0
    assert "loss" not in second, "JSON has no NaN"
    assert "grad_norm" not in second
    assert second["skipped"] == 1


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("Tesla T4", "t4"),
        ("NVIDIA L40S", "l40s"),
    ],
)
def test_a_driver_s_name_finds_the_datasheet(name: str, key: str) -> None:
    assert gpu_called(name) is GPUS[key]


def test_an_unknown_gpu_has_no_datasheet() -> None:
    assert gpu_called("Radeon Instinct MI300X") is None
