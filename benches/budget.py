"""`--budget` against the presets nearest in size and the bare default, each given the same: bits per byte.

    python benches/budget.py DATASET... [--budget 5m] [--seeds 3] [--runs build/bench/budget]

One run after another, each in a process of its own, as a user starts it. Leave the machine alone meanwhile, or give the
budget in operations, whose results go by no clock. A run that is there already is not run again. The bare default is
`pylm train` with the same budget but the table's model; where the budget chose that one, there is no row for it.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

from pylm.auto import Facts, count_parameters, resolve
from pylm.checkpoint import load_config
from pylm.dataset import Dataset
from pylm.errors import ConfigError
from pylm.models.presets import PRESETS

N_NEAREST = 3


def main() -> None:
    """A table for each dataset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("build/bench/budget"))
    options = parser.parse_args()
    for data in options.datasets:
        table(data, options.budget, options.seeds, options.runs)


def table(data: Path, budget: str, n_seeds: int, runs: Path) -> None:
    """Train everything on one dataset, and print a row for each kind of run."""
    facts = Facts(Dataset.open(data).train.n_tokens, Dataset.open(data).vocab_size, "cpu", str(data), "")
    chosen = train(data, [], budget, 0, runs / f"{data.name}-budget-0")
    kinds: dict[str, list[str]] = {"budget": []}
    kinds |= {preset: ["--preset", preset] for preset in nearest(chosen["n_parameters"], facts)}
    default, _ = resolve({"train.steps": 1}, facts)
    shape = {
        "n_layers": default.model.n_layers,
        "width": default.model.width,
        "n_heads": default.model.n_heads,
    }
    found = load_config(runs / f"{data.name}-budget-0")
    if (found.model, found.optimizer) != (default.model, default.optimizer):
        kinds["default"] = [
            item for name, value in shape.items() for item in ("--set", f"model.{name}={value}")
        ]
    print(f"{data.name}: {budget} each; {'; '.join(chosen['decisions'][:2])}")
    print("run             parameters   tokens      bits per byte (seeds)            mean    seconds")
    for kind, options in kinds.items():
        records: list[dict[str, Any]] = [
            train(data, options, budget, seed, runs / f"{data.name}-{kind}-{seed}") for seed in range(n_seeds)
        ]
        bits = [record["bits_per_byte"] for record in records]
        took = max(record["took_s"] for record in records)
        print(
            f"{kind:14}{records[0]['n_parameters']:12,} {records[0]['tokens']:12,}  "
            f"{'  '.join(f'{value:.4f}' for value in bits):30}  {mean(bits):.4f}  {took:8.1f}",
            flush=True,
        )


def nearest(n_parameters: int, facts: Facts) -> list[str]:
    """The presets whose size with this vocabulary differs least, as a factor."""
    sizes: dict[str, float] = {}
    for name in PRESETS:
        try:
            config, _ = resolve({"preset": name, "train.steps": 1}, facts)
        except ConfigError:
            continue
        n = count_parameters(config.flat())
        sizes[name] = max(n, n_parameters) / min(n, n_parameters)
    return sorted(sizes, key=lambda name: sizes[name])[:N_NEAREST]


def train(data: Path, options: list[str], budget: str, seed: int, run: Path) -> dict[str, Any]:
    """One run to its end; run.json, and how long the command took."""
    record = run / "bench.json"
    if not record.exists():
        command = [sys.executable, "-m", "pylm", "train", "--data", str(data), "--run", str(run), "--force"]
        command += ["--budget", budget, "--seed", str(seed), *options]
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took = time.monotonic() - began
        record.write_text(json.dumps(json.loads((run / "run.json").read_text()) | {"took_s": took}))
    found: dict[str, Any] = json.loads(record.read_text())
    return found


if __name__ == "__main__":
    main()
