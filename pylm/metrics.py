"""What a run leaves for people: metrics as JSON lines, samples, run.json, and the loss curve as a picture."""

import io
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pylm import __version__
from pylm.files import explained, write_bytes, write_json, write_text


class JsonLines:
    """A file of JSON objects, one a line, each written out at once so that a killed run keeps what it reported."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Open for appending after cutting every line whose step is past `last_step`, or that was cut short."""
        self._path = path
        with explained(path):
            if path.exists():
                kept = [line for line in read_lines(path) if line.get("step", 0) <= last_step]
                write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
            self._file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one object."""
        with explained(self._path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line cut short by a crash is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def write_record(run: Path, record: dict[str, Any]) -> None:
    """Replace run.json."""
    write_json(run / "run.json", {"format": "pylm-run", "version": 1, **record})


def read_record(run: Path) -> dict[str, Any]:
    """run.json as it stands; {} when there is none yet."""
    path = run / "run.json"
    if not path.exists():
        return {}
    value = json.loads(path.read_text())
    assert isinstance(value, dict)
    return {name: item for name, item in value.items() if name not in {"format", "version"}}


def machine() -> dict[str, Any]:
    """The machine a run was trained on."""
    return {
        "processor": _processor(),
        "n_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "n_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """The versions that matter to a result."""
    return {
        "pylm": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def draw_curve(run: Path) -> Path:
    """Draw curve.png from metrics.jsonl: training and validation loss against step and against time."""
    from matplotlib.figure import Figure  # half a second to import, needed only when a picture is drawn

    lines = read_lines(run / "metrics.jsonl")
    train = [line for line in lines if "loss" in line]
    # The last evaluation takes more windows than the others: a figure, not a point of their curve.
    val = [line for line in lines if "val_loss" in line and not line.get("final")]
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name, label, unit in zip(
        axes, ("step", "elapsed_s"), ("step", "minutes"), (1, 60), strict=True
    ):
        axis.plot(
            [line[name] / unit for line in train],
            [line["loss"] for line in train],
            lw=0.5,
            alpha=0.35,
            color="C0",
        )
        smooth = _smooth([line["loss"] for line in train])
        axis.plot(
            [line[name] / unit for line in train], smooth, lw=1.5, color="C0", label="training (smoothed)"
        )
        axis.plot(
            [line[name] / unit for line in val],
            [line["val_loss"] for line in val],
            "o-",
            ms=3,
            color="C1",
            label="validation",
        )
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("loss (nats per token)")
    axes[0].legend()
    if val:
        best = min(val, key=lambda line: line["val_loss"])
        title = f"{run.name}: best {best['val_loss']:.4f} nats per token"
        if "val_bits_per_byte" in best:  # not of a split without text
            title += f", {best['val_bits_per_byte']:.4f} bits per byte"
        figure.suptitle(title, fontsize=10)
        # The first losses are those of an untrained model: cut them off so that the rest can be read.
        low = min([line["val_loss"] for line in val] + smooth[-1:])
        high = max(val[len(val) // 4]["val_loss"], smooth[len(smooth) // 20] if smooth else 0)
        axes[0].set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low) + 1e-3)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    write_bytes(run / "curve.png", picture.getvalue())
    return run / "curve.png"


def _smooth(values: list[float]) -> list[float]:
    """An exponential average whose memory is a fiftieth of the run, corrected for its start."""
    keep = 1 - 1 / max(1.0, len(values) / 50)
    smooth, average, weight = [], 0.0, 0.0
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smooth.append(average / weight)
    return smooth


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
