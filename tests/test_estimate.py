"""The estimate as a whole: what fits, what would fit, a run's length, the command's two forms."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from pylm.accounting.counts import forward_flops
from pylm.accounting.devices import GPUS
from pylm.accounting.estimate import GIB, check_fits, estimate, fitting_micro_batch, largest_micro_batch
from pylm.accounting.memory import (
    EXPLICIT_POSITIONS,
    FUSED_ACTIVATIONS,
    FUSED_LANES,
    LOSS_BLOCK_BYTES,
    LOSS_KEPT_BYTES,
    LOSS_MIN_ROWS,
    MUON_STACKED_NUMBERS,
    Load,
    training_memory,
)
from pylm.accounting.run import check_run, fitted, load_of, run_estimate
from pylm.cli.estimate import command
from pylm.config import from_flat, parse_set
from pylm.errors import ConfigError
from pylm.loss import BLOCK_BYTES, KEPT_BYTES, MIN_ROWS
from pylm.measure import available_bytes, training_flops_per_s
from pylm.models.config import ModelConfig
from pylm.models.explicit import MAX_POSITIONS
from pylm.models.fused import LANES
from pylm.models.fused_block import ACTIVATIONS
from pylm.models.presets import PRESETS
from pylm.muon import STACKED_NUMBERS
from pylm.progress import duration

LLAMA = PRESETS["llama-138m"].model
LOAD = Load(micro_batch=16, context=1024)


def test_blocks_and_stacks_are_those_that_memory_counts() -> None:
    assert (LOSS_BLOCK_BYTES, LOSS_KEPT_BYTES, LOSS_MIN_ROWS) == (BLOCK_BYTES, KEPT_BYTES, MIN_ROWS)
    assert (EXPLICIT_POSITIONS, FUSED_LANES, MUON_STACKED_NUMBERS) == (MAX_POSITIONS, LANES, STACKED_NUMBERS)
    assert FUSED_ACTIVATIONS == ACTIVATIONS


def test_s0s_step_needs_less_than_half_of_its_20_gib() -> None:
    preset = PRESETS["compressed-373m"]
    load = Load(50, 64, activation_checkpointing=True, device="cuda", dtype="bfloat16")
    assert preset.recipe.batch_size == load.micro_batch
    assert preset.recipe.context == load.context
    memory = training_memory(preset.model, load)
    logits_mib = 4 * 50 * 64 * preset.model.vocab_size / 2**20
    assert logits_mib == pytest.approx(2_442, abs=1)  # a copy, of which the source's step held several
    assert memory.total < 9 * GIB


def test_16_bits_halve_what_products_keep() -> None:
    model = PRESETS["llama-350m"].model
    load = Load(4, 1024, device="cuda")
    full, half = (training_memory(model, replace(load, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert 0.5 < half.activations / full.activations < 0.7
    assert half.weights == full.weights


def test_states_of_adam_in_float32() -> None:
    memory = training_memory(PRESETS["compressed-373m"].model, LOAD)
    assert (memory.weights + memory.gradients + memory.optimizer) // 2**20 == 5_690  # S0
    memory = training_memory(PRESETS["swiglu-2.1b"].model, LOAD)
    assert (memory.weights + memory.gradients + memory.optimizer) / GIB == pytest.approx(
        31.696, abs=5e-4
    )  # S4
    memory = training_memory(PRESETS["stacks-577m"].model, replace(LOAD, micro_batch=2))
    assert (memory.weights + memory.gradients + memory.optimizer) / GIB == pytest.approx(8.6, abs=0.01)  # S2


def test_the_largest_micro_batch_fits_and_one_more_does_not() -> None:
    available = 9 * GIB
    most = largest_micro_batch(LLAMA, LOAD, available)
    assert training_memory(LLAMA, replace(LOAD, micro_batch=most)).total <= available
    assert training_memory(LLAMA, replace(LOAD, micro_batch=most + 1)).total > available
    assert largest_micro_batch(LLAMA, LOAD, GIB) == 0
    assert fitting_micro_batch(LLAMA, LOAD, 12, available) == max(d for d in (1, 2, 3, 4, 6, 12) if d <= most)


@pytest.mark.parametrize("available", [2.6 * GIB, 3.2 * GIB, 5 * GIB])
def test_what_cannot_fit_is_refused_with_settings_that_fit(available: float) -> None:
    with pytest.raises(ConfigError, match=r"training needs [\d.]+ GiB, [\d.]+ GiB are there") as refused:
        check_fits(LLAMA, LOAD, 16, int(available))
    message = str(refused.value)
    micro_batch = re.search(r"--micro-batch (\d+)", message)
    assert micro_batch is not None
    context = re.search(r"--context (\d+)", message)
    advised = replace(
        LOAD,
        micro_batch=int(micro_batch[1]),
        accumulates=int(micro_batch[1]) < 16,
        activation_checkpointing="activation_checkpointing=true" in message,
        context=int(context[1]) if context else LOAD.context,
    )
    assert check_fits(LLAMA, advised, 16, int(available)).total <= available


@pytest.mark.parametrize("load", [LOAD, replace(LOAD, optimizer="muon")])
def test_where_only_an_early_update_fits_it_is_advised_with_all_it_needs(load: Load) -> None:
    available = int(1.9 * GIB)  # below the 2.05 GiB of weights, gradients and moments
    with pytest.raises(ConfigError, match="early_update=true") as refused:
        check_fits(LLAMA, load, 16, available)
    advised = str(refused.value).rpartition(": ")[2]
    assert advised.startswith("--batch-size 1 --micro-batch 1 ")
    assert ("--optimizer adamw" in advised) == (load.optimizer == "muon")
    settings = parse_set(tuple(re.findall(r"--set (\S+)", advised)))
    context = re.search(r"--context (\d+)", advised)
    given = {"train.steps": 1, "train.batch_size": 1, "train.micro_batch": 1, **settings}
    config = from_flat(given | {"train.context": int(context[1]) if context else 1024})
    assert check_fits(LLAMA, load_of(config), 1, available).total <= available
    with pytest.raises(ConfigError, match="choose a smaller model"):
        check_fits(LLAMA, replace(load, device="cuda", dtype="float16"), 16, available)


def test_what_never_fits_says_so() -> None:
    with pytest.raises(ConfigError, match="choose a smaller model"):
        check_fits(LLAMA, LOAD, 16, GIB)
    assert check_fits(LLAMA, LOAD, 16, 10**12) == training_memory(LLAMA, LOAD)


def test_a_run_gets_a_micro_batch_that_fits() -> None:
    given = {"train.steps": 10, "train.batch_size": 16, "train.micro_batch": 16, "train.context": 1024}
    config = from_flat(given)  # llama-138m
    assert fitted(config, 10**12) == config
    smaller = fitted(config, 5 * GIB)
    assert 1 <= smaller.train.micro_batch < 16
    line = check_run(smaller, 5 * GIB, flops_per_s=1e12)
    flops = 3 * 16 * forward_flops(LLAMA, 1024)
    assert line.startswith(f"estimate: {flops:.4g} FLOPs a step, {10 * flops:.4g} in 10 steps, at least ")
    assert f"at least {duration(10 * flops / 1e12)} at 1,000 GFLOP/s; memory " in line
    assert " GiB of 5.00 (weights 0.51, gradients 0.51, " in line
    budget = replace(smaller.train, steps=0, budget_s=60.0)
    assert "FLOPs a step; memory " in check_run(replace(smaller, train=budget), 5 * GIB, flops_per_s=1e12)
    assert fitted(config, GIB) == config
    found = run_estimate(config, 5 * GIB, flops_per_s=1e12)
    assert found.fits is False
    assert found.n_tokens == 10 * 16 * 1024
    assert found.seconds == pytest.approx(10 * found.step_flops / 1e12)
    assert load_of(smaller).accumulates


def test_s4_time_of_a_run_at_a_given_speed() -> None:
    model = PRESETS["swiglu-2.1b"].model
    n_tokens = 400_000 * 1024 * 1024
    found = estimate(model, Load(1, 1024), batch_size=1024, n_tokens=n_tokens, flops_per_s=9.75e12)
    assert found.seconds is not None
    assert found.seconds / 86_400 == pytest.approx(6_583.6, abs=0.05)


def test_speed_and_memory_are_measured_here() -> None:
    config = ModelConfig(vocab_size=500, n_layers=3, width=32, n_heads=2, max_context=64)
    speed = training_flops_per_s(config, Load(2, 64), batch_size=4, limit_s=0.5)
    assert 1e6 < speed < 1e16
    assert available_bytes("cpu") > 1 << 20


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_command_prints_a_table_for_people_and_json_for_programs() -> None:
    arguments = (
        "swiglu-190m",
        "--device",
        "h100",
        "--context",
        "1024",
        "--batch-size",
        "512",
        "--dtype",
        "bfloat16",
    )
    text = run(*arguments)
    assert "parameters: 190,460,160" in text
    assert "forward FLOPs: 349,630,365,696" in text
    assert "h100 at 40% of 989 TFLOP/s, bfloat16" in text
    found = json.loads(run(*arguments, "--json"))
    assert found["n_parameters"] == 190_460_160
    assert sum(found["forward_flops"].values()) == 349_630_365_696
    assert found["step_flops"] == 3 * 512 * 349_630_365_696
    assert found["available_bytes"] < GPUS["h100"].memory_bytes
    assert found["tokens_per_parameter"] == pytest.approx(20, rel=0.01)
    assert found["fits"] is True


def test_the_command_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="unknown; expected cpu, cuda or one of"):
        run("swiglu-190m", "--device", "h1000")
    with pytest.raises(ConfigError, match="preset 'llama' is unknown"):
        run("llama", "--device", "h100")
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        run("tiny-67k", "--device", "cpu", "--dtype", "float16")
    with pytest.raises(ConfigError, match="--mfu"):
        run("swiglu-190m", "--device", "h100", "--mfu", "1.5")
