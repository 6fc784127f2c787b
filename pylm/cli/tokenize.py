"""`pylm tokenize`: text to a dataset."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pylm.progress import ProgressLine

_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SHORTEST_S = 0.2  # of a stage: before it a rate says nothing
_QUIET_S = 0.5  # a job that ends sooner shows no progress, and never imports what draws it


class Number(click.ParamType):  # type: ignore[type-arg] # generic since click 8.3
    """A positive whole number, K, M, G or T standing for thousands and so on."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Turn 1.5G into 1500000000; a usage error for what is no such number."""
        text = str(value).replace("_", "").upper()
        unit = _UNITS.get(text[-1:])
        try:
            number = float(text[:-1] if unit else text) * (unit or 1)
        except ValueError:
            number = 0.0
        if not 1 <= number < 2**63 or number != int(number):
            self.fail(
                f"expected a positive whole number such as 4096, 500K or 1.5G, found {value!r}", param, ctx
            )
        return int(number)


class _VocabSize(Number):
    """A number, or auto."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Turn auto into None."""
        return None if value in (None, "auto") else super().convert(value, param, ctx)


def training_options(command: Any) -> Any:
    """Add what decides a vocabulary that is made here: how text is read, split, merged, numbered."""
    return _with(
        command,
        click.option(
            "--vocab-size",
            type=_VocabSize(),
            default="auto",
            help="Ids in all, bytes and special tokens included; auto goes by the size of the text.",
        ),
        click.option(
            "--pattern",
            default="gpt2",
            help="How text is split before merging: gpt2, cl100k, o200k, whitespace, none or a regular expression.",
        ),
        click.option(
            "--alphabet", type=_choice(["bytes", "chars"]), default="bytes", help="What merges start from."
        ),
        click.option(
            "--special",
            multiple=True,
            help="A special token, repeatable, or none for no special token and bare documents. In text files its "
            "string is that token.  [default: <|endoftext|>]",
        ),
        click.option(
            "--special-ids",
            type=_choice(["end", "front"]),
            default="end",
            help="front: <unk> 0, <s> 1, </s> 2, <pad> 3, and </s> ends documents.",
        ),
        click.option(
            "--ties",
            type=_choice(["bytes", "huggingface", "ids"]),
            default="bytes",
            help="Which of several most frequent pairs is merged first.",
        ),
        click.option(
            "--min-frequency", type=Number(), default=1, help="Merge only pairs that occur so often."
        ),
        click.option("--max-token-bytes", type=Number(), help="Make no longer tokens."),
        click.option(
            "--format",
            type=_choice(["auto", "text", "lines", "jsonl", "parquet"]),
            default="auto",
            help="How documents stand in files; auto goes by their endings, text for unknown ones.",
        ),
        click.option("--field", default="text", help="The field of a record, for jsonl and parquet."),
        click.option("--dedup", is_flag=True, help="Drop documents that occurred before."),
        click.option("--limit-bytes", type=Number(), help="Read so much of each file, unpacked."),
        click.option("--jobs", type=click.IntRange(min=1), help="Threads.  [default: all cores]"),
    )


def special_tokens(given: tuple[str, ...]) -> tuple[str, ...] | None:
    """The values of --special as `Settings.special` has them."""
    if "none" in given and len(given) > 1:
        raise click.UsageError("--special none: expected alone, found with other special tokens")
    return None if not given else () if given == ("none",) else given


def _options(command: Any) -> Any:
    """The options that decide the token files, and the output's own."""
    return _with(
        command,
        click.option(
            "--end-of-text",
            help="The special token that ends documents.  [default: <|endoftext|>, else </s>]",
        ),
        click.option("--val", multiple=True, metavar="INPUT", help="Validation text of its own, repeatable."),
        click.option(
            "--val-fraction", type=float, default=0.01, help="Share of the text for validation; 0 for none."
        ),
        click.option(
            "--split",
            type=_choice(["auto", "hash", "tail"]),
            default="auto",
            help="Validation takes documents by their number, or the end of the text; auto prefers documents.",
        ),
        click.option(
            "--limit-tokens", type=Number(), help="Take so many tokens of each file (given tokenizers)."
        ),
        click.option(
            "--shard-size", type=Number(), help="Tokens of a file of the dataset.  [default: one file]"
        ),
        click.option("--force", is_flag=True, help="Replace a dataset made otherwise."),
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
    )


def _choice(values: list[str]) -> click.ParamType:  # type: ignore[type-arg] # generic since click 8.3
    return click.Choice(values)


def _with(command: Any, *options: Any) -> Any:
    for option in reversed(options):
        command = option(command)
    return command


@click.command(context_settings={"show_default": True})
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", type=click.Path(path_type=Path), help="The dataset's folder.  [default: data/STEM]")
@click.option(
    "--tokenizer",
    default="bpe",
    help="bpe, byte and char are made from the text; gpt2, cl100k, o200k or a PATH (tokenizer.json, a folder with one, "
    ".tiktoken) are given. Names are looked up in $TIKTOKEN_CACHE_DIR.",
)
@training_options
@_options
def command(
    inputs: tuple[str, ...],
    out: Path | None,
    special: tuple[str, ...],
    jobs: int | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a dataset from text: files, folders (their .txt, .md, .jsonl, .parquet), quoted globs, or - for stdin.

    Trains a tokenizer on the training documents, unless one is given, and writes token files, document offsets and
    tokenizer.json. The same command on the same input finds the dataset made and does nothing.
    """
    from pylm.tokenize import Settings, tokenize
    from pylm.tokenize.report import describe, summary

    started_s = time.monotonic()
    settings = Settings(special=special_tokens(special), **options)
    with job_progress() as progress:
        outcome = tokenize(inputs, settings, out=out, jobs=jobs, force=force, progress=progress)
    content = summary(outcome, time.monotonic() - started_s)
    click.echo(json.dumps(content, indent=2) if as_json else "\n".join(describe(content)))


@contextmanager
def job_progress() -> Iterator["_Progress"]:
    """Shows the stages of a job on stderr while it runs."""
    with ExitStack() as stack:
        yield _Progress(stack)


class _Progress:
    """Shows a stage's share, rate and time left on stderr."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started_s = time.monotonic()
        self._line: ProgressLine | None = None
        self._stage, self._stage_started_s = "", 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._stage_started_s = stage, now
        if now - self._started_s < _QUIET_S:
            return
        from pylm.progress import ProgressLine, duration

        if self._line is None:
            self._line = self._stack.enter_context(ProgressLine())
        elapsed_s = now - self._stage_started_s
        rate = done / elapsed_s if elapsed_s >= _SHORTEST_S else 0.0
        left = f", {duration((total - done) / rate)} left" if rate > 0 and total >= done else ""
        if stage == "merging":
            speed = f", {rate:,.0f}/s" if rate > 0 else ""
            self._line.update(f"{stage}: {done:,} of {total:,} merges{speed}{left}")
        else:
            speed = f", {rate / 1e6:,.0f} MB/s" if rate > 0 else ""
            self._line.update(f"{stage}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB{speed}{left}")
