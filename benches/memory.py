"""The estimate of a training step against the measured peak of memory: `python benches/memory.py [ROW...]`.

Each row is a process of its own: its resident memory just before the model is built is taken off the peak of three
steps after it. Linux only (it resets the peak through /proc/self/clear_refs).
"""

import json
import subprocess
import sys
from pathlib import Path

from pylm.accounting.memory import Load, training_memory
from pylm.models.config import ModelConfig

# What each row stresses, the model, and the step.
ROWS: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("weights", {}, {"micro_batch": 1, "context": 128}),
    ("weights, accumulated", {}, {"micro_batch": 1, "context": 128, "accumulates": True}),
    ("muon", {"qk_norm": True}, {"micro_batch": 1, "context": 128, "optimizer": "muon"}),
    ("activations", {"width": 384, "n_heads": 6, "vocab_size": 1000}, {"micro_batch": 4, "context": 1024}),
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
        "stacks",
        {"family": "stacks", "n_layers": 8, "n_stacks": 2, "width": 512, "n_heads": 4, "vocab_size": 8000}
        | {"mlp": "relu", "norm_kind": "layer", "positions": "sinusoid", "bias": True, "tied": False},
        {"micro_batch": 2, "context": 512},
    ),
]


def measure(config: ModelConfig, load: Load) -> int:
    """Run three steps in a fresh process and return the bytes of its peak above what it held before the model."""
    request = json.dumps([config.__dict__, load.__dict__])
    command = [sys.executable, __file__, "--run", request]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(result.stdout)


def run_steps(config: ModelConfig, load: Load) -> int:
    """Train three steps in this process, and return the bytes of the peak above the start."""
    import torch

    from pylm.config import OptimizerConfig
    from pylm.loss import summed_cross_entropy
    from pylm.models.build import build_model
    from pylm.optim import build_optimizers

    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    model = build_model(config)
    model.activation_checkpointing = load.activation_checkpointing
    optimizers = build_optimizers(model, OptimizerConfig(name=load.optimizer))
    for _ in range(3):
        for _ in range(2 if load.accumulates else 1):
            ids = torch.randint(config.vocab_size, (load.micro_batch, load.context + 1))
            summed_cross_entropy(model, ids[:, :-1], ids[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main(names: list[str]) -> None:
    """Print the table, of all rows or of those named."""
    print(f"{'':22} {'estimate':>9} {'measured':>9} {'error':>7}   MiB")
    for name, model, step in ROWS:
        if names and name not in names:
            continue
        config, load = ModelConfig(**model), Load(**step)  # type: ignore[arg-type]
        estimate, measured = training_memory(config, load).total, measure(config, load)
        error = estimate / measured - 1
        print(f"{name:22} {estimate / 2**20:9,.0f} {measured / 2**20:9,.0f} {error:+7.1%}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        _config, _load = json.loads(sys.argv[2])
        print(run_steps(ModelConfig(**_config), Load(**_load)))
    else:
        main(sys.argv[1:])
