"""The estimate of a training step against the measured peak of memory: `python benches/memory.py [ROW...]`.

A row is a process of its own: its resident memory just before the model is built is taken off the peak of the steps
after it. ROW may also be a preset: the first steps of that, of one sequence of 128 tokens. After a colon it may say how
the step or the model is to differ: `S2:micro_batch=1,dropout=0.1`, `compressed:dtype="bfloat16"`. Linux only (it resets
the peak through /proc/self/clear_refs).
"""

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

from pylm.accounting.memory import Load, training_memory
from pylm.models.config import ModelConfig
from pylm.models.presets import PRESETS, find_preset

# What each row stresses, the model, and the step.
LARGE: dict[str, dict[str, object]] = {  # take minutes and up to 9 GiB: only by name
    "S0": {"micro_batch": 50, "context": 64, "activation_checkpointing": True},
    "S2": {"micro_batch": 2, "context": 2048, "activation_checkpointing": True, "early_update": True},
}
ROWS: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("weights", {}, {"micro_batch": 1, "context": 128}),
    ("weights, accumulated", {}, {"micro_batch": 1, "context": 128, "accumulates": True}),
    ("muon", {"qk_norm": True}, {"micro_batch": 1, "context": 128, "optimizer": "muon"}),
    ("activations", {"width": 384, "n_heads": 6, "vocab_size": 1000}, {"micro_batch": 4, "context": 1024}),
    (
        "the auto preset's blocks",
        {"width": 384, "n_heads": 6, "vocab_size": 1000, "mlp": "relu2"}
        | {"norm_kind": "layer", "norm_gains": "none", "qk_norm": True},
        {"micro_batch": 4, "context": 1024},
    ),
    ("recomputed", {}, {"micro_batch": 2, "context": 512, "activation_checkpointing": True}),
    ("all alike", {}, {"micro_batch": 2, "context": 512}),
    (
        "vocabulary",
        {"n_layers": 4, "width": 384, "n_heads": 6, "vocab_size": 100_000},
        {"micro_batch": 8, "context": 256},
    ),
    (
        "dropout",
        {"n_layers": 6, "width": 256, "n_heads": 4, "vocab_size": 1000, "dropout": 0.1},
        {"micro_batch": 8, "context": 512},
    ),
    (
        "gelu, untied",
        {"width": 512, "n_heads": 8, "vocab_size": 8000, "mlp": "gelu", "bias": True, "norm_kind": "layer"}
        | {"positions": "learned", "tied": False},
        {"micro_batch": 4, "context": 512},
    ),
    (
        "compressed",
        {"attention": "compressed", "width": 512, "n_heads": 8, "n_layers": 8, "vocab_size": 1000}
        | {"mlp": "gelu", "bias": True, "norm_kind": "layer", "max_context": 8192},
        {"micro_batch": 1, "context": 8192},
    ),
    (
        "stacks",
        {"family": "stacks", "n_layers": 8, "n_stacks": 2, "width": 512, "n_heads": 4, "vocab_size": 8000}
        | {"mlp": "relu", "norm_kind": "layer", "positions": "sinusoid", "bias": True, "tied": False},
        {"micro_batch": 2, "context": 512},
    ),
]

# S2's dropout is left out: with it a CPU has no fused attention.
ROWS += [
    (name, PRESETS[preset].model.__dict__ | {"dropout": 0.0}, LARGE[name])
    for name, preset in (("S0", "compressed-373m"), ("S2", "stacks-577m"))
]


def measure(config: ModelConfig, load: Load) -> int:
    """Run three steps in a fresh process and return the bytes of its peak above what it held before the model."""
    request = json.dumps([config.__dict__, load.__dict__])
    command = [sys.executable, __file__, "--run", request]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(result.stdout)


def run_steps(config: ModelConfig, load: Load) -> int:
    """Train a few steps in this process, and return the bytes of the peak above the start."""
    from pylm.allocator import map_large_tensors

    map_large_tensors()
    import torch

    from pylm.config import OptimizerConfig
    from pylm.feed import StepBatch
    from pylm.models.build import build_model
    from pylm.optim import build_optimizers
    from pylm.precision import Precision
    from pylm.step import Stepper

    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    model = build_model(config)
    model.activation_checkpointing = load.activation_checkpointing
    optimizers = build_optimizers(model, OptimizerConfig(name=load.optimizer), load.dtype)
    clip = 0.0 if load.early_update else 1.0
    precision = Precision(load.dtype, torch.device("cpu"))
    stepper = Stepper(model, optimizers, clip=clip, precision=precision, early_update=load.early_update)
    n_sequences = load.micro_batch * (2 if load.accumulates else 1)
    # The first step is short: it makes what the optimizer keeps.
    for context in (16, load.context) if load.activation_checkpointing else (16, load.context, load.context):
        ids = torch.randint(config.vocab_size, (n_sequences, context + 1))
        stepper.step(StepBatch((ids[:, :-1], ids[:, 1:]), load.micro_batch, n_sequences * context))
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main(names: list[str]) -> None:
    """Print the table, of all rows or of those named."""
    print(f"{'':36} {'estimate':>9} {'measured':>9} {'error':>7}   MiB")
    rows = {name: (ModelConfig(**model), Load(**step)) for name, model, step in ROWS}  # type: ignore[arg-type]
    for name in names or [name for name in rows if name not in LARGE]:
        row, _, changes = name.partition(":")
        config, load = rows[row] if row in rows else of_preset(row)
        for setting, value in tomllib.loads(changes.replace(",", "\n")).items():
            if setting in Load.__dataclass_fields__:
                load = replace(load, **{setting: value})
            else:
                config = replace(config, **{setting: value})
        estimate, measured = training_memory(config, load).total, measure(config, load)
        error = estimate / measured - 1
        print(f"{name:36} {estimate / 2**20:9,.0f} {measured / 2**20:9,.0f} {error:+7.1%}", flush=True)


def of_preset(name: str) -> tuple[ModelConfig, Load]:
    """A preset and a short step of it."""
    preset = find_preset(name)
    recomputes = preset.recipe.activation_checkpointing or False
    context = min(128, preset.model.max_context)
    return preset.model, Load(micro_batch=1, context=context, activation_checkpointing=recomputes)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        _config, _load = json.loads(sys.argv[2])
        print(run_steps(ModelConfig(**_config), Load(**_load)))
    else:
        main(sys.argv[1:])
