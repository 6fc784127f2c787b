"""`pylm estimate`: parameters, operations, memory and time of a training, before it is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from pylm.accounting.estimate import Estimate
    from pylm.config import Config

# Options that are one setting each, by the setting's dotted name.
SETTINGS = {
    "batch_size": "train.batch_size",
    "micro_batch": "train.micro_batch",
    "context": "train.context",
    "tokens": "train.tokens",
    "optimizer": "optimizer.name",
    "dtype": "train.dtype",
}


@click.command()
@click.argument("model", metavar="PRESET|CONFIG")
@click.option("--data", help="A dataset, for its vocabulary and size.  [default: the preset's vocabulary]")
@click.option(
    "--tokens", type=click.IntRange(min=1), help="Length of the training.  [default: as train has it]"
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Sequences of one step.  [default: by preset]")
@click.option(
    "--micro-batch", type=click.IntRange(min=1), help="Sequences held at a time.  [default: what fits]"
)
@click.option("--context", type=click.IntRange(min=1), help="Tokens of a window.  [default: by preset]")
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]), help="[default: by preset]")
@click.option("--set", "set_items", multiple=True, metavar="KEY=VALUE", help="One setting, as in train.")
@click.option("--device", help="cpu, cuda, or a GPU by name, such as h100.  [default: the best there is]")
@click.option(
    "--mfu", default=0.4, show_default=True, help="Part of a named GPU's peak that training reaches."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the arithmetic.  [default: float32 on a CPU; on a GPU by preset, or bfloat16]",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(
    model: str,
    data: str | None,
    set_items: tuple[str, ...],
    device: str | None,
    mfu: float,
    as_json: bool,
    **options: int | str | None,
) -> None:
    """Tell what training PRESET (or the model of CONFIG.toml) takes: parameters, operations, memory, time."""
    import json

    from pylm.config import check_given, parse_set, read_toml

    given = read_toml(Path(model)) if model.endswith(".toml") else {"preset": model}
    given |= parse_set(set_items)
    asked = {SETTINGS[name]: value for name, value in options.items() if value is not None}
    given |= check_given(asked, "command line")

    from pylm.allocator import map_large_tensors

    map_large_tensors()  # what is measured here is to be as fast as a training
    from pylm.prospect import Question, prospect

    config, found, speed = prospect(Question(given, data, device, mfu))
    if as_json:
        click.echo(json.dumps({"preset": config.preset, "speed": speed, **found.as_dict()}, indent=2))
    else:
        _print(config, found, speed)


def _print(config: Config, found: Estimate, speed: str) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    load = found.load
    _print_shares(console, "parameters", found.parameters, f"{config.model.vocab_size:,} ids")
    _print_shares(console, "forward FLOPs", found.forward_flops, f"one sequence of {load.context:,} tokens")
    _print_memory(console, found)
    lines = [
        ("one step", f"{found.step_flops:.4e} FLOPs, {found.batch_size:,} x {load.context:,} tokens"),
        ("generation", f"{_size(found.cache_bytes)} of keys and values for {load.context:,} tokens"),
        ("checkpoint", _size(found.checkpoint_bytes)),
        ("tokens", f"{found.n_tokens:,}, {found.tokens_per_parameter:.1f} a parameter"),
        ("time", f"{_duration(found.seconds)} ({speed})" if found.seconds is not None else speed),
    ]
    for name, value in lines:
        console.print(f"{name:<12}{value}")


def _print_shares(console: Console, name: str, parts: dict[str, int], note: str) -> None:
    total = sum(parts.values())
    rows = [(part, f"{count:,}", f"{count / total:7.2%}") for part, count in parts.items()]
    _print_rows(console, f"{name}: {total:,} ({note})", rows)


def _print_memory(console: Console, found: Estimate) -> None:
    load, memory = found.load, found.memory
    recomputed = ", activations recomputed" if load.activation_checkpointing else ""
    parts = ("weights", "gradients", "optimizer", "activations", "loss", "overhead")
    rows = [(part, _size(getattr(memory, part))) for part in parts]
    rows.append(("peak (not all at once)", _size(memory.total)))
    if found.available_bytes is not None:
        rows.append(("there is", _size(found.available_bytes)))
        rows.append(
            (
                "largest micro-batch",
                f"{found.largest_micro_batch:,}" if found.largest_micro_batch else "none fits",
            )
        )
    held = f"micro-batch {load.micro_batch:,} x {load.context:,} tokens, {load.dtype}, {load.optimizer}{recomputed}"
    _print_rows(console, f"memory of training ({held})", rows)


def _print_rows(console: Console, title: str, rows: Sequence[tuple[str, ...]]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(min_width=24)
    for _ in rows[0][1:]:
        table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(f"[bold]{title}[/bold]", table, "", sep="\n")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.2f} MiB"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} seconds"
