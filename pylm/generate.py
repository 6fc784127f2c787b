"""Tokens to text: one token after another is drawn from the model, and whole characters are handed on."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.errors import ConfigError
from pylm.sampling import SamplingSettings, sample

if TYPE_CHECKING:
    from pylm.models.build import Decoder
    from pylm.tokenizer import Tokenizer

# Axes: B samples of a batch, T tokens, V vocabulary, D features.


@dataclass(frozen=True)
class GenerationSettings:
    """What `pylm generate` is asked for; the defaults are its own.

    Raises:
        ConfigError: a value outside its range, named with the range.
    """

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    max_tokens: int = 256  # new ones, of each sample
    stop: tuple[str, ...] = ()  # texts that end a sample, themselves left out
    ignore_end_of_text: bool = False
    samples: int = 1  # all in one batch
    seed: int = 0
    top_probabilities: int = 0  # how many of the most probable tokens to report at each step
    cached: bool = True  # keep keys and values between steps; the tokens are the same without
    context: int | None = None  # tokens the model may look back on; by default all that it can

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("samples", 1), ("seed", 0), ("top_probabilities", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, found {getattr(self, name)}")
        if self.seed >= 2**63:
            raise ConfigError(f"seed must be below 2^63, found {self.seed}")
        if self.context is not None and self.context < 1:
            raise ConfigError(f"context must be at least 1, found {self.context}")
        if "" in self.stop:
            raise ConfigError("stop must be a text of at least one character, found an empty one")


@dataclass(frozen=True)
class Choice:
    """A token of a sample, with its probability at temperature 1 and the most probable ones, best first."""

    token: int
    probability: float
    best: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Sample:
    """One finished sample."""

    text: str  # new text, without the prompt
    n_tokens: int  # new ones, an end of text among them
    ended_by: str  # "end of text", "stop" or "max tokens"
    choices: tuple[Choice, ...]  # one for each new token if top_probabilities was asked for, else none


def sample_text(
    model: Decoder,
    tokenizer: Tokenizer,
    prompt: str,
    max_tokens: int,
    settings: SamplingSettings,
    seed: int = 0,
) -> str:
    """Return the prompt and at most `max_tokens` tokens after it; neither mode nor random state changes."""
    generation = GenerationSettings(sampling=settings, max_tokens=max_tokens, seed=seed)
    return prompt + generate(model, tokenizer, prompt_tokens(tokenizer, prompt), generation)[0].text


def prompt_tokens(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Encode a prompt, special tokens allowed; an empty one is the end of text, which every document follows.

    Raises:
        ConfigError: the prompt is empty and the tokenizer has no end of text.
        DataError: the tokenizer cannot encode the prompt.
    """
    tokens: list[int] = tokenizer.encode(prompt, special="allow").tolist()
    if tokens:
        return tokens
    if tokenizer.end_of_text_id is None:
        raise ConfigError("this tokenizer has no end-of-text token to start from: give a text with --prompt")
    return [tokenizer.end_of_text_id]


def generate(
    model: Decoder,
    tokenizer: Tokenizer,
    prompt: list[int],
    settings: GenerationSettings,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Sample]:
    """Continue a prompt `settings.samples` times.

    Args:
        model: put into evaluation mode meanwhile.
        tokenizer: what the model was trained with.
        prompt: at least one token.
        settings: see there.
        on_text: called with the sample's number and each piece of its new text, whole characters only.

    Returns:
        The samples in order; the pieces given to `on_text` join to their texts.
    """
    writers = [_Writer(tokenizer, settings) for _ in range(settings.samples)]
    for step in _steps(model, prompt, settings, _ids_without_token(tokenizer)):
        for number, (writer, choice) in enumerate(zip(writers, step, strict=True)):
            piece = writer.add(choice)
            if piece and on_text is not None:
                on_text(number, piece)
        if all(writer.ended_by for writer in writers):
            break
    for number, writer in enumerate(writers):
        piece = writer.finish()
        if piece and on_text is not None:
            on_text(number, piece)
    return [writer.sample() for writer in writers]


def window_start(n_tokens: int, context: int) -> int:
    """Where the model's window begins after n tokens: it moves on by half a context whenever it is full.

    A function of the number alone, so that cached and uncached generation, and a long prompt, agree.
    """
    step = context - context // 2
    return max(0, -(-(n_tokens - context) // step) * step)


def _ids_without_token(tokenizer: Tokenizer) -> list[int]:
    """Ids below vocab_size that stand for nothing (cl100k has one such), and must not be said."""
    if tokenizer.n_tokens == tokenizer.vocab_size:
        return []
    special = set(tokenizer.special_tokens.values())
    return [i for i in (tokenizer.token_lengths() == 0).nonzero()[0].tolist() if i not in special]


def _steps(
    model: Decoder, prompt: list[int], settings: GenerationSettings, banned: list[int]
) -> Iterator[list[Choice]]:
    """Yield a token for each sample, max_tokens times; who has enough stops asking."""
    device = model.head_weight.device
    generator = torch.Generator(device).manual_seed(settings.seed)
    said_BT = torch.tensor(prompt, device=device).repeat(settings.samples, 1)
    with _evaluating(model):
        read = _Reader(model, settings)
        for _ in range(settings.max_tokens):
            logits_BV = read(said_BT)
            logits_BV[:, banned] = float("-inf")
            tokens_B = sample(logits_BV, said_BT, settings.sampling, generator)
            said_BT = torch.cat([said_BT, tokens_B[:, None]], dim=1)
            yield _choices(logits_BV, tokens_B, settings.top_probabilities)


@contextmanager
def _evaluating(model: Decoder) -> Iterator[None]:
    """Evaluation mode without gradients; inference mode would leave tensors in it that cannot train."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


class _Reader:
    """Asks the model for the next token's logits, through a cache or without one."""

    def __init__(self, model: Decoder, settings: GenerationSettings) -> None:
        self._model = model
        self._context = min(settings.context or model.config.max_context, model.config.max_context)
        self._cache = model.new_cache(settings.samples, self._context) if settings.cached else None
        self._start = 0
        self._n_read = 0

    def __call__(self, said_BT: Tensor) -> Tensor:
        start = window_start(said_BT.shape[1], self._context)
        if self._cache is None:
            self._n_read = start
        elif start != self._start:
            self._cache.reset()
            self._start = self._n_read = start
        x_BTD = self._model.features(said_BT[:, self._n_read :], self._cache)
        self._n_read = said_BT.shape[1]
        # Only the last position's logits: those of a long prompt would need T times the memory.
        logits_BV = F.linear(x_BTD[:, -1], self._model.head_weight, self._model.head_bias)
        return logits_BV[:, : self._model.config.vocab_size]


def _choices(logits_BV: Tensor, tokens_B: Tensor, n_best: int) -> list[Choice]:
    if n_best == 0:
        return [Choice(token, float("nan"), ()) for token in tokens_B.tolist()]
    probabilities_BV = torch.softmax(logits_BV.float(), dim=-1)
    chosen = probabilities_BV.gather(1, tokens_B[:, None])[:, 0].tolist()
    best = probabilities_BV.topk(min(n_best, probabilities_BV.shape[1]), dim=-1)
    pairs = [
        tuple(zip(*row, strict=True)) for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return [Choice(*item) for item in zip(tokens_B.tolist(), chosen, pairs, strict=True)]


class _Writer:
    """Turns one sample's tokens into text: whole characters, none of a stop text, none after the end."""

    def __init__(self, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
        self.ended_by = ""
        self._tokenizer = tokenizer
        self._settings = settings
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pieces: list[str] = []
        self._held = ""  # the beginning, perhaps, of a stop text
        self._choices: list[Choice] = []

    def add(self, choice: Choice) -> str:
        """Take the next token and return the text that is now certain."""
        if self.ended_by:
            return ""
        self._choices.append(choice)
        if choice.token == self._tokenizer.end_of_text_id and not self._settings.ignore_end_of_text:
            self.ended_by = "end of text"
            return self.finish()
        text = self._held + self._decoder.decode(self._tokenizer.decode_bytes([choice.token]))
        places = [place for stop in self._settings.stop if (place := text.find(stop)) >= 0]
        if places:
            self.ended_by = "stop"
            self._held = ""
            return self._emit(text[: min(places)])
        n_held = max((_overlap(text, stop) for stop in self._settings.stop), default=0)
        self._held = text[len(text) - n_held :]
        return self._emit(text[: len(text) - n_held])

    def finish(self) -> str:
        """Return what was held back; bytes of a character that never became whole are dropped."""
        held, self._held = self._held, ""
        return self._emit(held)

    def sample(self) -> Sample:
        choices = tuple(self._choices) if self._settings.top_probabilities else ()
        return Sample("".join(self._pieces), len(self._choices), self.ended_by or "max tokens", choices)

    def _emit(self, text: str) -> str:
        self._pieces.append(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop` without being all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
