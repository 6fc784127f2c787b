"""What `pylm tokenize` says at its end: for programs as one JSON object, for people as a few lines."""

import resource
import sys
from typing import Any

from pylm import _bpe
from pylm.tokenize.job import Outcome

_MANY_LINES = 1000


def summary(outcome: Outcome, elapsed_s: float) -> dict[str, Any]:
    """The report as JSON has it. A dataset that was there already has sizes alone, and `made` false.

    Sizes are in bytes, times in seconds, rates of the whole job in MB of text and of its last stage in tokens.
    """
    info, report = outcome.info, outcome.report
    splits = {
        name: {
            "n_documents": split.n_documents,
            "n_tokens": split.n_tokens,
            "text_bytes": split.text_bytes,
            "bytes_per_token": split.text_bytes / max(1, split.n_tokens),
        }
        for name, split in info.splits.items()
    }
    text_bytes = sum(split.text_bytes for split in info.splits.values())
    content: dict[str, Any] = {
        "dataset": str(outcome.dataset),
        "made": report is not None,
        "dataset_sha256": info.sha256,
        "vocab_size": info.vocab_size,
        "dtype": info.dtype,
        "split": info.split,
        "text_bytes": text_bytes,
        "splits": splits,
    }
    if report is None:
        return content
    n_tokens = sum(split.n_tokens for split in info.splits.values())
    token_id, token = report["longest_token"]
    return content | {
        "n_documents": report["n_documents"],
        "n_empty": report["n_empty"],
        "n_duplicates": report["n_duplicates"],
        "n_lines": report["n_lines"],
        "n_merges": report["n_merges"],
        "n_words": report["n_words"],
        "n_pretokens": report["n_pretokens"],
        "ran_out_of_pairs": report["ran_out_of_pairs"],
        "vocab_size_was_auto": info.settings["tokenizer"] == "bpe" and info.settings["vocab_size"] is None,
        "longest_token": {"id": token_id, "n_bytes": len(token), "hex": token.hex(), "text": _text(token)},
        "seconds": report["seconds"] | {"total": elapsed_s},
        "mb_per_s": text_bytes / 1e6 / elapsed_s,
        "tokens_per_s": n_tokens / max(1e-9, report["seconds"]["encoding"]),
        "peak_memory_bytes": _peak_memory_bytes(),
    }


def describe(content: dict[str, Any]) -> list[str]:
    """The lines for people of a `summary`."""
    if not content["made"]:
        return [
            f"{content['dataset']}: made before from the same inputs and settings; nothing to do",
            *_table(content),
        ]
    lines = [f"{content['dataset']}", *_text_lines(content), *_vocabulary_lines(content), *_table(content)]
    seconds = content["seconds"]
    stages = ", ".join(
        f"{name} {seconds[name]:.2f}" for name in ("reading", "counting", "merging", "encoding")
    )
    lines.append(
        f"  time        {seconds['total']:.2f} s ({stages}), {content['mb_per_s']:.0f} MB of text a second"
    )
    lines.append(
        f"  encoding    {content['tokens_per_s'] / 1e6:.1f} million tokens a second; "
        f"peak memory {content['peak_memory_bytes'] / 1e6:.0f} MB"
    )
    if content["n_documents"] == 1 and content["n_lines"] > _MANY_LINES:
        lines.append("one document; if each line is a sample, use --format lines")
    return lines


def _text_lines(content: dict[str, Any]) -> list[str]:
    dropped = [f"{content['n_empty']:,} empty dropped"] if content["n_empty"] else []
    dropped += [f"{content['n_duplicates']:,} repeated dropped"] if content["n_duplicates"] else []
    also = f" ({', '.join(dropped)})" if dropped else ""
    return [
        f"  text        {content['text_bytes'] / 1e6:,.1f} MB in {_count(content['n_documents'], 'document')}{also}",
        f"  split       {_split(content['split'])}",
    ]


def _split(split: dict[str, Any]) -> str:
    method, fraction = split["method"], split["fraction"]
    match method:
        case "hash":
            return f"hash: about {fraction:.3g} of the documents, by their number, for validation"
        case "tail":
            return f"tail: the last {fraction:.3g} of the text for validation"
        case "given":
            return "validation text of its own"
        case _:
            return "none: no validation text"


def _vocabulary_lines(content: dict[str, Any]) -> list[str]:
    token = content["longest_token"]
    lines = [
        f"  vocabulary  {content['vocab_size']:,} ids ({content['dtype']}), {content['n_merges']:,} merges; "
        f"longest token {_count(token['n_bytes'], 'byte')}: {_shortened(token['text'])}"
    ]
    if content["vocab_size_was_auto"]:
        table = ", ".join(f"{size:,} from {text / 1e6:g} MB" for text, size in _bpe.AUTO_VOCAB_SIZES)
        lines.append(f"              chosen by the size of the text: {table}")
    if content["ran_out_of_pairs"]:
        lines.append("              no pair was left to merge: fewer ids than asked for")
    return lines


def _table(content: dict[str, Any]) -> list[str]:
    lines = ["              documents          tokens  bytes per token"]
    for name, split in content["splits"].items():
        numbers = f"{split['n_documents']:>13,} {split['n_tokens']:>15,} {split['bytes_per_token']:>16.3f}"
        lines.append(f"  {name:<5}   {numbers}")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _shortened(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}…"


def _text(token: bytes) -> str:
    return token.decode(errors="replace")


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
