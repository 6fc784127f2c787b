"""Text files to a dataset folder: settings, one call of the Rust core, and a folder put in place when it is whole."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pylm import __version__, _bpe
from pylm.corpus import STDIN, find_inputs, stem
from pylm.dataset_info import DatasetInfo, Source, SplitInfo, TokenFile
from pylm.errors import ConfigError, PylmError
from pylm.files import explained
from pylm.folders import claimed
from pylm.tokenize.inputs import Inputs
from pylm.tokenize.made_before import check_is_dataset, made_before
from pylm.tokenize.settings import Settings

if TYPE_CHECKING:
    from pylm.tokenizer import Tokenizer

END_OF_TEXT = "<|endoftext|>"
SPLIT_SEED = 0

Progress = Callable[[str, int, int], None]
"""Called some times a second with the stage, and how much of it is done of how much, in bytes or merges."""


@dataclass(frozen=True)
class Outcome:
    """What `tokenize` did; `report` is what `pylm._bpe.tokenize_corpus` returned, None when nothing was to do."""

    dataset: Path
    info: DatasetInfo
    report: dict[str, Any] | None


def tokenize(
    inputs: Sequence[str],
    settings: Settings,
    *,
    out: Path | None = None,
    jobs: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Make a dataset of the inputs (files, folders, globs, `-`), or find that it was made already.

    `out` is data/STEM of the first input by default, `jobs` the number of threads, by default one a core.

    Raises DataError for inputs, ConfigError for settings, PylmError for the output: another dataset is there and
    `force` is not set, another process makes it, the disk is full. What was there before then still is.
    """
    out = out or default_output(inputs)
    found = Inputs.find(inputs, settings)
    if not found.reads_stdin and not force and (made := made_before(out, found, settings)):
        return Outcome(out, made, None)
    with claimed(out) as claim:
        spool = claim.folder / "stdin"
        if found.reads_stdin:
            found = found.with_stdin_in(spool)
            if not force and (made := made_before(out, found, settings)):
                return Outcome(out, made, None)
        check_is_dataset(out)
        with _told_as(spool, claim.folder, out):
            report = _run(found, settings, claim.folder, jobs, progress)
        spool.unlink(missing_ok=True)
        info = _info(found, settings, report)
        with explained(out):
            info.write(claim.folder)
        claim.put_in_place()
    return Outcome(out, info, report)


def train_vocabulary(
    inputs: Sequence[str],
    settings: Settings,
    *,
    out: Path,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> tuple["Tokenizer", dict[str, Any]]:
    """Make the vocabulary that `tokenize` would make without validation text, and write it to the file `out` alone.

    Returns it and what `pylm._bpe.tokenize_corpus` returned. Raises as `tokenize`; `out` is replaced when all is done.
    """
    from pylm.tokenizer import Tokenizer  # numpy, which `tokenize` does not need

    settings = replace(settings, val=(), val_fraction=0.0)
    found = Inputs.find(inputs, settings)
    with explained(out):
        work = tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)
    with work as name:
        folder = Path(name)
        spool = folder / "stdin"
        if found.reads_stdin:
            found = found.with_stdin_in(spool)
        with _told_as(spool, folder, out):
            report = _run(found, settings, folder, jobs, progress, vocabulary_only=True)
        tokenizer = Tokenizer.load(folder)
    tokenizer.save(out)
    return tokenizer, report


def default_output(inputs: Sequence[str]) -> Path:
    """data/STEM of the first input; a folder's whole name. Raises ConfigError where there is no name to take."""
    if inputs[0] == STDIN:
        raise ConfigError("--out: expected a folder for the dataset when text comes from stdin")
    path = Path(inputs[0])
    return Path("data", path.resolve().name if path.is_dir() else stem(find_inputs(inputs[:1])[0].path))


@contextmanager
def _told_as(spool: Path, folder: Path, out: Path) -> Iterator[None]:
    """Names in errors what the user knows, instead of the files that stand for it while a job runs."""
    try:
        yield
    except PylmError as error:
        error.args = (str(error).replace(str(spool), "stdin").replace(str(folder), str(out)),)
        raise


def _n_cores() -> int:
    """Cores that this process may use, which in a container or under a scheduler are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(
    inputs: Inputs,
    settings: Settings,
    folder: Path,
    jobs: int | None,
    progress: Progress | None,
    *,
    vocabulary_only: bool = False,
) -> dict[str, Any]:
    special = settings.special
    if special is None:
        special = (END_OF_TEXT,) if inputs.given is None and settings.special_ids == "end" else ()
    has_split = settings.val_fraction > 0 and inputs.n_val_files == 0
    return _bpe.tokenize_corpus(
        inputs=[
            (file.path, file.format, file.packing, inputs.is_val(index))
            for index, file in enumerate(inputs.files)
        ],
        out=folder,
        tokenizer=settings.tokenizer if inputs.given is None else inputs.given._core,
        words=inputs.words(settings),
        pattern=settings.pattern,
        alphabet=settings.alphabet,
        vocab_size=settings.vocab_size,
        ties=settings.ties,
        min_frequency=settings.min_frequency,
        max_token_bytes=settings.max_token_bytes,
        special_tokens=list(special),
        special_ids=settings.special_ids,
        end_of_text=settings.end_of_text,
        bare_documents=settings.special == (),
        field=settings.field,
        split=settings.split if has_split else "none",
        val_fraction=settings.val_fraction,
        split_seed=SPLIT_SEED,
        drop_duplicates=settings.dedup,
        limit_bytes=settings.limit_bytes,
        limit_tokens=settings.limit_tokens,
        shard_tokens=settings.shard_size,
        vocabulary_only=vocabulary_only,
        threads=jobs or _n_cores(),
        progress=progress,
    )


def _info(inputs: Inputs, settings: Settings, report: dict[str, Any]) -> DatasetInfo:
    method = report["split"]
    return DatasetInfo(
        pylm_version=__version__,
        dtype=report["dtype"],
        vocab_size=report["vocab_size"],
        tokenizer_sha256=report["tokenizer_sha256"],
        end_of_text_id=report["end_of_text_id"],
        special_ids=report["special_ids"],
        split={
            "method": "given" if inputs.n_val_files else method,
            "fraction": settings.val_fraction if method in ("hash", "tail") else None,
            "seed": SPLIT_SEED if method == "hash" else None,
        },
        sources=tuple(
            Source(name, size_bytes, sha256, "val" if inputs.is_val(index) else None)
            for index, (name, (size_bytes, sha256)) in enumerate(
                zip(inputs.names, report["sources"], strict=True)
            )
        ),
        splits={name: _split_info(side) for name, side in report["splits"].items()},
        settings=settings.as_stored(),
    )


def _split_info(side: dict[str, Any]) -> SplitInfo:
    files = tuple(TokenFile(*file) for file in side["files"])
    return SplitInfo(files, side["n_tokens"], side["n_documents"], side["text_bytes"])
