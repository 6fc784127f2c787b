"""How the loss falls with parameters and tokens: the runs and the fit behind `pylm train --budget` (pylm/budget.py).

    python benches/scaling.py run DATASET OUT.jsonl [CELL...]    a cell is LAYERSxWIDTH:TOKENS[:BATCH]
    python benches/scaling.py fit OUT.jsonl [OUT.jsonl...]       the constants, and how far the fit is from each run

A run's loss depends on no clock, so the machine may be busy. The fit is

    loss = E + scale x (ratio / N^alpha + 1 / D^beta)

with an E and a scale for each text: N counts the parameters of the blocks, D the tokens trained on, both in millions.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np

from pylm.budget import recipe
from pylm.launch import Request, launch
from pylm.progress import ProgressLine

CELLS = [
    *(f"2x64:{tokens}" for tokens in ("150000", "300000", "600000", "1200000")),
    *(f"4x128:{tokens}" for tokens in ("150000", "300000", "600000", "1200000")),
    *(f"4x192:{tokens}" for tokens in ("150000", "300000", "600000")),
    *(f"6x256:{tokens}" for tokens in ("150000", "300000")),
    "4x128:600000:8",
    "4x128:600000:32",
]


def main() -> None:
    """Run or fit, as the first argument says."""
    match sys.argv[1:]:
        case ["run", data, out, *cells]:
            run(data, Path(out), cells or CELLS)
        case ["fit", *files] if files:
            fit([Path(file) for file in files])
        case _:
            sys.exit(__doc__)


def run(data: str, out: Path, cells: list[str]) -> None:
    """Train each cell that `out` does not have, and append its loss."""
    done = {json.loads(line)["cell"] for line in out.read_text().splitlines()} if out.exists() else set()
    for cell in cells:
        if cell in done:
            continue
        shape, tokens, *batch = cell.split(":")
        n_layers, width = (int(part) for part in shape.split("x"))
        given = recipe(n_layers, width) | {
            "train.tokens": int(tokens),
            "train.eval_tokens": 8_192,
            "train.final_eval_tokens": 131_072,
            "train.sample_every": 0,
            "train.save_every": 0,
        }
        if batch:
            given["train.batch_size"] = int(batch[0])
        folder = out.parent / f"{out.stem}-{cell.replace(':', '-')}"
        launch(
            Request(given, (data,), str(folder), True, "bench", time.monotonic()), ProgressLine(shown=False)
        )
        record = json.loads((folder / "run.json").read_text())
        line = {
            "cell": cell,
            "n_parameters": record["n_parameters"],
            "n_in_blocks": 12 * n_layers * width**2,
            "tokens": record["tokens"],
            "loss": record["loss"],
            "seconds": record["elapsed_s"],
        }
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


def fit(files: list[Path]) -> None:
    """Least squares: exponents by a grid, the rest linear for each text with the ratio shared."""
    texts = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    texts = [[line for line in lines if line["cell"].count(":") == 1] for lines in texts]
    best = (np.inf, 0.0, 0.0, 0.0)
    grid = itertools.product(
        np.arange(0.1, 1.01, 0.02), np.arange(0.1, 1.01, 0.02), np.geomspace(1e-3, 1e3, 121)
    )
    for alpha, beta, ratio in grid:
        error = sum(_residuals(lines, alpha, beta, ratio)[0] for lines in texts)
        best = min(best, (error, alpha, beta, ratio))
    error, alpha, beta, ratio = best
    n = sum(map(len, texts))
    print(f"alpha {alpha:.2f}  beta {beta:.2f}  ratio {ratio:.3g}  rms {np.sqrt(error / n):.4f} nats")
    for file, lines in zip(files, texts, strict=True):
        _, (floor, scale), found = _residuals(lines, alpha, beta, ratio)
        print(f"{file.stem}: E {floor:.3f}  scale {scale:.3f}")
        for line, value in zip(lines, found, strict=True):
            print(f"  {line['cell']:16} loss {line['loss']:.4f}  fit {value:.4f}  {line['seconds']:.0f} s")


def _residuals(
    lines: list[dict[str, float]], alpha: float, beta: float, ratio: float
) -> tuple[float, tuple[float, float], np.ndarray]:
    """The squared error of one text, its E and scale, and the fitted losses."""
    x = np.array(
        [ratio * (line["n_in_blocks"] / 1e6) ** -alpha + (line["tokens"] / 1e6) ** -beta for line in lines]
    )
    y = np.array([line["loss"] for line in lines])
    scale = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    floor = y.mean() - scale * x.mean()
    if floor < 0:  # a loss below zero cannot be the limit
        floor, scale = 0.0, (x @ y) / (x @ x)
    found = floor + scale * x
    return float(((found - y) ** 2).sum()), (float(floor), float(scale)), found


if __name__ == "__main__":
    main()
