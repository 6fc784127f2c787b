"""How the loss falls with parameters and tokens: runs and a fit. Why `--budget` is not by it: docs/training.md.

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
import numpy.typing as npt

from pylm.budget import recipe
from pylm.launch import Request, launch
from pylm.progress import ProgressLine

FloatArray = npt.NDArray[np.float64]

CELLS = (
    "2x64:75000 4x128:75000 4x192:75000 2x64:150000 4x128:150000 4x192:150000 2x64:300000 4x128:300000 6x256:150000 "
    "2x64:600000 4x192:300000"
).split()


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
            "train.eval_every": 10**9,
            "train.final_eval_tokens": 131_072,
            "train.sample_every": 0,
            "train.save_every": 0,
        }
        if batch:
            given["train.batch_size"] = int(batch[0])
        folder = out.resolve().parent / f"{out.stem}-{cell.replace(':', '-')}"
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
    """Least squares: exponents and the ratio, which all texts share, by a grid; E and scale of each text exactly."""
    texts = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    texts = [[line for line in lines if line["cell"].count(":") == 1] for lines in texts]
    ratios_R = np.geomspace(1e-3, 1e3, 241)
    best = (np.inf, 0.0, 0.0, 0.0)
    for alpha, beta in itertools.product(np.arange(0.1, 1.01, 0.02), repeat=2):
        errors_R = sum(_fitted(lines, alpha, beta, ratios_R)[0] for lines in texts)
        best = min(best, (float(errors_R.min()), alpha, beta, float(ratios_R[errors_R.argmin()])))
    error, alpha, beta, ratio = best
    n = sum(map(len, texts))
    print(
        f"alpha {alpha:.2f}  beta {beta:.2f}  ratio {ratio:.3g}  rms {np.sqrt(error / n):.4f} nats, {n} runs"
    )
    for file, lines in zip(files, texts, strict=True):
        _, floors, scales, found = _fitted(lines, alpha, beta, np.array([ratio]))
        print(f"{file.stem}: E {floors[0]:.3f}  scale {scales[0]:.3f}")
        for line, value in sorted(zip(lines, found[0], strict=True), key=lambda pair: pair[0]["n_in_blocks"]):
            print(
                f"  {line['cell']:12} {line['tokens']:10,} tokens  loss {line['loss']:.4f}  fit {value:.4f}"
            )


def _fitted(
    lines: list[dict[str, float]], alpha: float, beta: float, ratios_R: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """For each ratio: the squared error of one text, its E (0 at the least) and scale, and the losses (R, n)."""
    size, tokens, y = (np.array([line[name] for line in lines]) for name in ("n_in_blocks", "tokens", "loss"))
    x_RN = ratios_R[:, None] * (size / 1e6) ** -alpha + (tokens / 1e6) ** -beta
    centred_RN = x_RN - x_RN.mean(1, keepdims=True)
    scales_R = centred_RN @ (y - y.mean()) / (centred_RN**2).sum(1)
    floors_R = y.mean() - scales_R * x_RN.mean(1)
    below_R = floors_R < 0
    scales_R = np.where(below_R, x_RN @ y / (x_RN**2).sum(1), scales_R)
    floors_R = np.where(below_R, 0.0, floors_R)
    found_RN = floors_R[:, None] + scales_R[:, None] * x_RN
    return ((found_RN - y) ** 2).sum(1), floors_R, scales_R, found_RN


if __name__ == "__main__":
    main()
