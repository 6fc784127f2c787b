"""`pylm generate`: a trained model continues a prompt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from pylm.generate import GenerationSettings, Sample
    from pylm.tokenizer import Tokenizer


@click.command()
@click.argument("run", required=False)
@click.option(
    "--prompt", default="", show_default="a new text", help="Text to continue; special tokens count."
)
@click.option("--max-tokens", default=256, help="New tokens of each sample, at most.")
@click.option(
    "--temperature", default=0.8, help="Below 1 more of the probable, above 1 more of the rare; 0 is greedy."
)
@click.option("--top-k", default=50, help="Choose among so many most probable tokens; 0 for all.")
@click.option(
    "--top-p", default=1.0, help="Choose among the most probable tokens that sum to this probability."
)
@click.option("--repetition-penalty", default=1.0, help="Above 1 makes what was said less likely.")
@click.option("--no-repeat-ngram", default=0, help="Say no run of so many tokens twice; 0 for no such rule.")
@click.option("--stop", multiple=True, help="End before this text; may be given several times.")
@click.option("--ignore-end-of-text", is_flag=True, help="Go on after the end of a text.")
@click.option("--samples", default=1, help="How many, all in one batch.")
@click.option(
    "--seed", type=int, show_default="a new one, printed", help="The same seed says the same again."
)
@click.option(
    "--top-probabilities",
    metavar="N",
    default=0,
    help="After the text, the N most probable tokens of each step.",
)
@click.option(
    "--checkpoint", type=click.Choice(["best", "last"]), default="best", help="Which checkpoint of the run."
)
def command(
    run: str | None,
    prompt: str,
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    repetition_penalty: float,
    no_repeat_ngram: int,
    stop: tuple[str, ...],
    ignore_end_of_text: bool,
    samples: int,
    seed: int | None,
    top_probabilities: int,
    checkpoint: Literal["best", "last"],
) -> None:
    """Continue a text with the model of RUN, a path or a name under runs/, by default the newest."""
    import dataclasses
    import secrets

    import torch

    from pylm.checkpoint import load_for_inference
    from pylm.generate import GenerationSettings, generate, prompt_tokens
    from pylm.runs import resolve_run
    from pylm.sampling import SamplingSettings

    sampling = SamplingSettings(temperature, top_k, top_p, repetition_penalty, no_repeat_ngram)
    seed = secrets.randbits(31) if seed is None else seed
    # Checked here, before a model of gigabytes is read.
    settings = GenerationSettings(
        sampling, max_tokens, stop, ignore_end_of_text, samples, seed, top_probabilities
    )
    path = resolve_run(run)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_for_inference(path, checkpoint, device)
    # Positions past the training window were never trained, whatever the model could hold.
    context = min(loaded.config.train.context, loaded.config.model.max_context)
    settings = dataclasses.replace(settings, context=context)
    tokens = prompt_tokens(loaded.tokenizer, prompt)
    click.echo(
        f"{path}: {checkpoint} checkpoint, step {loaded.step}, context {context}, seed {seed}, on {device}",
        err=True,
    )
    if samples == 1:
        click.echo(prompt, nl=False)
        try:
            found = generate(
                loaded.model, loaded.tokenizer, tokens, settings, lambda _, piece: click.echo(piece, nl=False)
            )
        finally:  # an error stands on a line of its own
            click.echo()
    else:
        found = generate(loaded.model, loaded.tokenizer, tokens, settings)
    _report(found, prompt, len(tokens), loaded.tokenizer, settings)


def _report(
    samples: list[Sample], prompt: str, n_prompt: int, tokenizer: Tokenizer, settings: GenerationSettings
) -> None:
    for number, sample in enumerate(samples, 1):
        if settings.samples > 1:
            click.echo(f"--- sample {number} of {settings.samples}")
            click.echo(prompt + sample.text)
        for choice in sample.choices:
            best = "  ".join(f"{_show(tokenizer, token)} {p:.4f}" for token, p in choice.best)
            click.echo(f"{_show(tokenizer, choice.token)} {choice.probability:.4f}  of  {best}")
        total = n_prompt + sample.n_tokens
        name = f"sample {number}: " if settings.samples > 1 else ""
        counts = f"prompt {n_prompt}, new {sample.n_tokens}, total {total} tokens"
        click.echo(f"{name}{counts}, ended by {sample.ended_by}", err=True)


def _show(tokenizer: Tokenizer, token: int) -> str:
    return json.dumps(tokenizer.decode_bytes([token]).decode(errors="backslashreplace"), ensure_ascii=False)
