"""`pylm train`: a dataset to a run; the same command resumes it."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pylm.config import Given, check_given, parse_save_every, parse_set, read_toml
from pylm.errors import PylmError, SaidElsewhere

# Options that are one setting each, by the setting's dotted name.
SETTINGS = {
    "preset": "preset",
    "steps": "train.steps",
    "tokens": "train.tokens",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "micro_batch": "train.micro_batch",
    "context": "train.context",
    "lr": "optimizer.lr",
    "warmup": "schedule.warmup",
    "weight_decay": "optimizer.weight_decay",
    "dropout": "model.dropout",
    "device": "train.device",
    "seed": "train.seed",
    "optimizer": "optimizer.name",
    "dtype": "train.dtype",
    "compile": "train.compile",
    "keep": "train.keep",
}


@click.command(context_settings={"show_default": True})
@click.option(
    "--data",
    multiple=True,
    metavar="NAME[=WEIGHT]",
    help="A dataset's folder or its name under data/; several are mixed.  [default: the newest in data/]",
)
@click.option("--run", help="A folder, or a name under runs/.  [default: DATA-PRESET-HASH8 of these options]")
@click.option(
    "--preset", help="A model with its source's recipe; auto goes by data and device.  [default: auto]"
)
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings from a TOML file.")
@click.option(
    "--set", "set_items", multiple=True, metavar="KEY=VALUE", help="One setting, such as model.n_layers=6."
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Optimizer steps.  [default: 20 tokens a parameter or 4 epochs]",
)
@click.option("--tokens", type=click.IntRange(min=1), help="End after so many training tokens.")
@click.option(
    "--epochs", type=click.FloatRange(min=0, min_open=True), help="End after so many passes over the data."
)
@click.option(
    "--budget",
    help="End after a time (90s, 10m, 1h30m), operations (2e18flops) or tokens (500Mtok); the schedule ends with it, "
    "and without a preset the model is chosen for it.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Sequences of one optimizer step.  [default: by preset]"
)
@click.option(
    "--micro-batch", type=click.IntRange(min=1), help="Sequences held at a time.  [default: what fits]"
)
@click.option(
    "--context", type=click.IntRange(min=1), help="Tokens of a training window.  [default: by preset]"
)
@click.option("--lr", type=float, help="Peak learning rate.  [default: by preset]")
@click.option("--warmup", type=click.IntRange(min=0), help="Steps of linear warm-up.  [default: by preset]")
@click.option("--weight-decay", type=float, help="On matrices only.  [default: by preset]")
@click.option("--dropout", type=float, help="[default: by preset]")
@click.option(
    "--optimizer", type=click.Choice(["adamw", "muon"]), help="[default: by preset; muon where that is auto]"
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the arithmetic.  [default: bfloat16 on a GPU, float32 elsewhere]",
)
@click.option(
    "--compile",
    type=click.Choice(["auto", "on", "off"]),
    help="torch.compile; auto is on for a GPU.  [default: auto]",
)
@click.option(
    "--save-every",
    metavar="N|10m|1ep",
    help="Save every N steps, minutes or epochs.  [default: 20 times a run]",
)
@click.option(
    "--keep", type=click.IntRange(min=1), help="Last checkpoints kept, besides the best.  [default: 1]"
)
@click.option("--device", help="cpu, cuda, mps.  [default: the best there is]")
@click.option("--seed", type=click.IntRange(min=0), help="[default: 0]")
@click.option("--force", is_flag=True, help="Delete the run if it exists, and start anew.")
def command(
    data: tuple[str, ...],
    run: str | None,
    config_path: Path | None,
    set_items: tuple[str, ...],
    budget: str | None,
    save_every: str | None,
    force: bool,
    **options: str | int | float | None,
) -> None:
    """Train a model on a dataset; the same command resumes it after a stop."""
    started_s = time.monotonic()
    with _said_once():
        given: Given = read_toml(config_path) if config_path else {}
        given |= parse_set(set_items)
        asked = {SETTINGS[name]: value for name, value in options.items() if value is not None}
        given |= check_given(asked, "command line")
        if save_every is not None:
            given |= parse_save_every(save_every)

    from pylm.allocator import map_large_tensors

    map_large_tensors()
    from pylm.auto import parse_budget  # torch and the models from here on
    from pylm.launch import Request, launch
    from pylm.progress import ProgressLine
    from pylm.runs import command_line
    from pylm.world import is_first

    if budget is not None:
        with _said_once():
            given |= parse_budget(budget)
    typed = command_line(sys.argv[1:])
    request = Request(given, data, run, force, typed, started_s, chooses=budget is not None)
    launch(request, ProgressLine(shown=is_first()))


@contextmanager
def _said_once() -> Iterator[None]:
    """An error that all processes of torchrun find by themselves is said by the first one of each machine."""
    try:
        yield
    except PylmError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            raise
        raise SaidElsewhere(error.exit_code) from None
