"""`pylm data`: made-up languages, and how well a text speaks them."""

from __future__ import annotations

from typing import IO

import click


@click.group()
def command() -> None:
    """Make text of a made-up language, and score text that should be in one."""


@command.command()
@click.argument("language", type=click.Choice(["simple", "addition"]))
@click.option("--count", type=click.IntRange(min=0), default=2000, help="Words of simple, lines of addition.")
@click.option("--seed", default=0, help="The same seed makes the same text.")
@click.option(
    "--out", type=click.File("w", encoding="utf-8", lazy=True), default="-", help="A file; - is stdout."
)
def make(language: str, count: int, seed: int, out: IO[str]) -> None:
    """Make text: `simple` words that alternate consonants and vowels, or `addition` lines like 1 + 2 = 3;."""
    from pylm.made_up import addition, simple

    out.write((simple if language == "simple" else addition).make(count, seed))


@command.command()
@click.argument("language", type=click.Choice(["simple", "addition"]))
@click.argument("text", type=click.File("r", encoding="utf-8", errors="replace"), default="-")
@click.option(
    "--context", type=click.IntRange(min=1), default=64, help="Window of the best possible loss of simple."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def score(language: str, text: IO[str], context: int, as_json: bool) -> None:
    """Count what is right in TEXT (a file, or - for stdin), and give the language's best possible loss."""
    import json

    from pylm.made_up import addition, simple
    from pylm.made_up.simple_loss import full_history_loss, window_loss

    found = (simple if language == "simple" else addition).score(text.read())
    if language == "simple":
        unit, right = "words", "valid"
        losses = {"whole history": full_history_loss(), f"windows of {context}": window_loss(context)}
    else:
        unit, right = "lines", "right sums"
        losses = {"adding": addition.best_loss(), "not adding": addition.best_loss_without_adding()}
    if as_json:
        counts = {"n_units": found.n_units, "n_well_formed": found.n_well_formed, "n_right": found.n_right}
        shares = {"share_well_formed": found.share_well_formed, "share_right": found.share_right}
        click.echo(json.dumps({"language": language, **counts, **shares, "best_losses": losses}))
        return
    click.echo(f"{found.n_units:,} {unit}")
    click.echo(f"{found.n_well_formed:,} well-formed ({found.share_well_formed:.1%})")
    click.echo(f"{found.n_right:,} {right} ({found.share_right:.1%})")
    for way, loss in losses.items():
        click.echo(f"best possible loss, {way}: {loss:.4f} nats a character")
