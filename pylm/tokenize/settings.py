"""How text becomes tokens: what decides the bytes of a dataset beside its inputs."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from pylm.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """How text becomes tokens, as it was asked for: what decides a dataset's bytes beside its inputs.

    `special` None stands for the default (`<|endoftext|>`), () for no special token at all.
    """

    tokenizer: str = "bpe"
    vocab_size: int | None = None
    pattern: str = "gpt2"
    alphabet: str = "bytes"
    special: tuple[str, ...] | None = None
    special_ids: str = "end"
    end_of_text: str | None = None
    ties: str = "bytes"
    min_frequency: int = 1
    max_token_bytes: int | None = None
    format: str = "auto"
    field: str = "text"
    val: tuple[str, ...] = ()
    val_fraction: float = 0.01
    split: str = "auto"
    dedup: bool = False
    limit_bytes: int | None = None
    limit_tokens: int | None = None
    shard_size: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"--val-fraction {self.val_fraction}: expected a share from 0 to below 1")
        if self.special == () and (self.special_ids == "front" or self.end_of_text is not None):
            option = (
                "--special-ids front" if self.special_ids == "front" else f"--end-of-text {self.end_of_text}"
            )
            raise ConfigError(
                f"--special none: expected special tokens with {option}, which ends documents by one"
            )
        if self.val and self.split != "auto":
            raise ConfigError(
                f"--split {self.split}: expected no split with --val, which names the validation text"
            )
        for name in self._set_in_vain():
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{option}: expected only with --tokenizer bpe, found --tokenizer {self.tokenizer}"
            )

    def _set_in_vain(self) -> list[str]:
        """Settings of training that were given for a vocabulary that is not trained."""
        if self.tokenizer == "bpe":
            return []
        of_training = {"vocab_size", "pattern", "alphabet", "ties", "min_frequency", "max_token_bytes"}
        if self.tokenizer.endswith(".tiktoken"):
            of_training.remove("pattern")  # such a file does not hold its own
        return [f.name for f in fields(self) if f.name in of_training and getattr(self, f.name) != f.default]

    def as_stored(self) -> dict[str, Any]:
        """As dataset.json has it: names to values of JSON."""
        stored: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return stored
