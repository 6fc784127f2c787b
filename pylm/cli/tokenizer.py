"""`pylm tokenizer`: make, use, look at, compare and convert vocabularies."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from pylm.cli.tokenize import Number, job_progress, special_tokens, training_options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pylm.tokenizer import Tokenizer
    from pylm.vocabulary_facts import TokenFacts

_CHUNK_BYTES = 1 << 20
_IDS_AT_ONCE = 1 << 20

_TOKENIZER_HELP = (
    "A tokenizer.json, a folder with one (a dataset, a run), a .tiktoken file, GPT-2's vocab.json, or gpt2, cl100k, "
    "o200k from $TIKTOKEN_CACHE_DIR."
)
_tokenizer_option = click.option("--tokenizer", "source", required=True, help=_TOKENIZER_HELP)
_special_option = click.option(
    "--special-tokens",
    "special_text",
    type=click.Choice(["error", "allow", "text"]),
    default="error",
    help="What the string of a special token is: an error, that token, or plain text.",
)


@click.group(context_settings={"show_default": True})
def command() -> None:
    """Make, use, look at, compare and convert vocabularies."""


@command.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="tokenizer.json",
    help="The file, in the format of Hugging Face.",
)
@click.option(
    "--tokenizer",
    type=click.Choice(["bpe", "byte", "char"]),
    default="bpe",
    help="What to make: merges, or a token for each byte or character.",
)
@training_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def train(
    inputs: tuple[str, ...],
    out: Path,
    special: tuple[str, ...],
    jobs: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a vocabulary from text, as `pylm tokenize` does, and write it to a file alone."""
    from pylm.tokenize import Settings, train_vocabulary

    settings = Settings(special=special_tokens(special), **options)
    with job_progress() as progress:
        tokenizer, report = train_vocabulary(inputs, settings, out=out, jobs=jobs, progress=progress)
    token_id, token = report["longest_token"]
    content = {
        "tokenizer": str(out),
        "sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "n_merges": tokenizer.n_merges,
        "ran_out_of_pairs": report["ran_out_of_pairs"],
        "longest_token": {"id": token_id, "n_bytes": len(token), "text": token.decode(errors="replace")},
        "n_documents": report["n_documents"],
        "text_bytes": report["text_bytes"],
        "seconds": report["seconds"],
    }
    if as_json:
        click.echo(json.dumps(content, indent=2))
        return
    seconds = report["seconds"]
    click.echo(f"{out}")
    click.echo(f"  text        {report['text_bytes'] / 1e6:,.1f} MB in {report['n_documents']:,} documents")
    click.echo(
        f"  vocabulary  {tokenizer.vocab_size:,} ids, {tokenizer.n_merges:,} merges; "
        f"longest token {len(token)} bytes: {token.decode(errors='replace')!r}"
    )
    if report["ran_out_of_pairs"]:
        click.echo("              no pair was left to merge: fewer ids than asked for")
    click.echo(
        f"  time        {seconds['total']:.2f} s (counting {seconds['counting']:.2f}, merging {seconds['merging']:.2f})"
    )


@command.command()
@click.argument("text", default="-")
@_tokenizer_option
@_special_option
@click.option(
    "--show",
    type=click.Choice(["ids", "tokens", "count"]),
    default="ids",
    help="ids on one line; tokens, a line each with its id; or their number.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the ids here instead, raw and little-endian."
)
def encode(text: str, source: str, special_text: Any, show: str, out: Path | None) -> None:
    """Encode TEXT, a file or - for stdin, as one text."""
    from pylm.files import replacing
    from pylm.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(source)
    arrays = tokenizer.encode_iterable(_chunks(text), special_text)
    if out is not None:
        stored = tokenizer.dtype.newbyteorder("<")
        with replacing(out) as file:
            n_tokens = sum(file.write(ids.astype(stored).tobytes()) // ids.itemsize for ids in arrays)
        click.echo(f"{out}: {n_tokens:,} ids, {tokenizer.dtype}")
    elif show == "count":
        click.echo(sum(map(len, arrays)))
    elif show == "tokens":
        for ids in arrays:
            for token_id in ids.tolist():
                click.echo(f"{token_id}\t{_quoted(tokenizer.token_bytes(token_id))}")
    else:
        for number, ids in enumerate(arrays):
            click.echo((" " if number else "") + " ".join(map(str, ids.tolist())), nl=False)
        click.echo()


@command.command()
@click.argument("ids", default="-")
@_tokenizer_option
def decode(ids: str, source: str) -> None:
    """Decode IDS to bytes on stdout: numbers in text, or a .bin file of `encode --out` or of a dataset."""
    from pylm.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(source)
    for array in _read_ids(ids, tokenizer):
        sys.stdout.buffer.write(tokenizer.decode_bytes(array))
    sys.stdout.buffer.flush()


@command.command()
@click.argument("source", metavar="TOKENIZER")
@click.option(
    "--id", "ids", type=int, multiple=True, help="Tell about the token of this id alone; repeatable."
)
@click.option("--token", "strings", multiple=True, help="Tell about this token alone; repeatable.")
@click.option(
    "--longest", type=click.IntRange(min=0), default=10, help="How many of the longest tokens to list."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def inspect(source: str, ids: tuple[int, ...], strings: tuple[str, ...], longest: int, as_json: bool) -> None:
    """Tell what a vocabulary holds, or how tokens of it are made."""
    from pylm.tokenizer import Tokenizer
    from pylm.vocabulary_facts import token_facts, vocabulary_facts

    tokenizer = Tokenizer.load(source)
    if ids or strings:
        tokens = token_facts(tokenizer, [*ids, *strings])
        if as_json:
            click.echo(json.dumps([token.as_json() for token in tokens], indent=2))
        else:
            click.echo("\n".join(_token_line(tokenizer, token) for token in tokens))
        return
    facts = vocabulary_facts(tokenizer, longest)
    if as_json:
        click.echo(json.dumps({"tokenizer": source, **facts.as_json()}, indent=2))
        return
    specials = (
        ", ".join(f"{string} {token_id}" for string, token_id in facts.special_tokens.items()) or "none"
    )
    rule = "a pre-token that is a token stays whole" if facts.ignore_merges else "merges alone make tokens"
    lines = [
        source,
        f"  ids          {facts.vocab_size:,} ({facts.dtype}), {facts.n_tokens:,} of them tokens",
        f"  merges       {facts.n_merges:,} over {facts.alphabet}; {rule}; they miss {facts.unreached:,} tokens",
        f"  pattern      {facts.pattern}",
        f"  special      {specials}",
        f"  end of text  {'none' if facts.end_of_text_id is None else facts.end_of_text_id}",
        f"  sha256       {facts.sha256}",
    ]
    lines += [f"  longest      {_token_line(tokenizer, token)}" for token in facts.longest]
    click.echo("\n".join(lines))


@command.command()
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--tokenizer", "sources", multiple=True, required=True, help=f"{_TOKENIZER_HELP} Repeatable.")
@click.option("--documents", type=click.IntRange(min=1), default=10, help="Documents to sample of each text.")
@click.option("--seed", default=0, help="The same seed samples the same documents.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["auto", "text", "lines", "jsonl", "parquet"]),
    default="auto",
    help="How documents stand in files; auto goes by their endings, text for unknown ones.",
)
@click.option("--field", default="text", help="The field of a record, for jsonl and parquet.")
@click.option(
    "--limit-bytes", type=Number(), default="64M", help="Read so much of each file, unpacked, into memory."
)
@click.option("--jobs", type=click.IntRange(min=1), help="Threads.  [default: all cores]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def stats(
    texts: tuple[str, ...],
    sources: tuple[str, ...],
    documents: int,
    seed: int,
    format_name: str,
    field: str,
    limit_bytes: int,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Cross tokenizers with TEXTs (files, folders, globs): bytes per token, longest tokens, throughput.

    Bytes per token are those of sampled documents; throughput is that of all that was read, encoded once, and what it
    means for 825 GB.
    """
    from pylm.tokenizer import Tokenizer
    from pylm.tokenizer_stats import fit, read_documents

    tokenizers = {source: Tokenizer.load(source) for source in sources}
    read = {
        text: read_documents(text, format_name=format_name, field=field, limit_bytes=limit_bytes)
        for text in texts
    }
    fits = fit(tokenizers, read, n_sampled=documents, seed=seed, threads=jobs)
    if as_json:
        click.echo(json.dumps([one.as_json() for one in fits], indent=2))
        return
    widths = [max(len(name) for name in names) for names in (texts, sources)]
    for one in fits:
        click.echo(
            f"{one.text:<{widths[0]}}  {one.tokenizer:<{widths[1]}}  {one.bytes_per_token:6.3f} bytes per token "
            f"({one.n_sampled:,} of {one.n_documents:,} documents)  {one.bytes_per_s / 1e6:6.1f} MB/s, "
            f"825 GB in {_hours(one.projected_s)}  longest {len(one.longest_token)} bytes {_quoted(one.longest_token)}"
        )


@command.command()
@click.argument("source", metavar="TOKENIZER")
@click.option(
    "--to",
    "target",
    type=click.Choice(["hf", "tiktoken", "gpt2"]),
    required=True,
    help="hf: tokenizer.json. tiktoken: a .tiktoken file. gpt2: a folder with vocab.json and merges.txt.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The file, or the folder of gpt2."
)
@click.option(
    "--pattern", help="The pattern of a .tiktoken file that is not published: a name or a regular expression."
)
@click.option(
    "--special", multiple=True, metavar="TOKEN=ID", help="A special token of such a file; repeatable."
)
def convert(source: str, target: str, out: Path, pattern: str | None, special: tuple[str, ...]) -> None:
    """Write a vocabulary in another format; refused where that would mean other ids."""
    from pylm.tokenizer import END_OF_TEXT, Tokenizer

    if pattern is not None or special:
        tokenizer = Tokenizer.from_tiktoken(source, pattern=pattern, special_tokens=_special_ids(special))
    else:
        tokenizer = Tokenizer.load(source)
    specials = json.dumps(tokenizer.special_tokens, ensure_ascii=False)
    if target == "hf":
        tokenizer.save(out)
    elif target == "tiktoken":
        tokenizer.save_tiktoken(out)
        click.echo(f"not in the file: pattern {tokenizer.pattern}, special tokens {specials}", err=True)
    else:
        tokenizer.save_gpt2(out)
        if set(tokenizer.special_tokens) - {END_OF_TEXT}:
            click.echo(f"not in the files: that these tokens are special: {specials}", err=True)
    click.echo(f"{out}: {tokenizer.n_tokens:,} tokens, {tokenizer.n_merges:,} merges")


def _special_ids(special: tuple[str, ...]) -> dict[str, int] | None:
    if not special:
        return None
    pairs = [one.rpartition("=") for one in special]
    if wrong := [
        one
        for one, (string, _, number) in zip(special, pairs, strict=True)
        if not string or not number.isdigit()
    ]:
        raise click.UsageError(f"--special {wrong[0]}: expected TOKEN=ID, such as <|endoftext|>=50256")
    return {string: int(number) for string, _, number in pairs}


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """A file to read, or stdin for -."""
    if name == "-":
        yield sys.stdin.buffer
    else:
        with Path(name).open("rb") as file:
            yield file


def _chunks(name: str) -> Iterator[bytes]:
    with _opened(name) as file:
        yield from iter(lambda: file.read(_CHUNK_BYTES), b"")


def _read_ids(name: str, tokenizer: Tokenizer) -> Iterator[npt.NDArray[np.integer[Any]]]:
    import numpy as np

    from pylm.errors import DataError

    with _opened(name) as file:
        if Path(name).suffix == ".bin":
            dtype = tokenizer.dtype.newbyteorder("<")
            while block := file.read(_IDS_AT_ONCE * dtype.itemsize):
                if len(block) % dtype.itemsize:
                    raise DataError(
                        f"{name}: expected ids of {dtype.itemsize} bytes each, found half an id at the end"
                    )
                yield np.frombuffer(block, dtype).astype(tokenizer.dtype)
            return
        words = file.read().translate(bytes.maketrans(b",[]", b"   ")).split()
    try:
        yield np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{name}: expected ids as whole numbers: {error}") from None


def _token_line(tokenizer: Tokenizer, token: TokenFacts) -> str:
    line = f"{token.id:>8}  {len(token.token):>4} bytes  {_quoted(token.token)}"
    if token.special:
        return f"{line}  special"
    if token.parts is None:
        return line
    left, right = (_quoted(tokenizer.token_bytes(part)) for part in token.parts)
    return f"{line}  merge {token.rank:,} of {left} and {right}"


def _quoted(token: bytes) -> str:
    return json.dumps(token.decode(errors="backslashreplace"), ensure_ascii=False)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
