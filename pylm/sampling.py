"""Logits to a token: penalties over what was said, then temperature, top-k and top-p, then one draw.

Axes: B sequences of a batch, T tokens said so far, V vocabulary, N tokens of an n-gram. Every function leaves
its input as it was; a token that may not follow has the logit -inf. The order is that of transformers'
`generate`, and both penalties equal its processors on the same logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pylm.errors import ConfigError, TrainingError


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is chosen; the defaults are those of `pylm generate`.

    Raises:
        ConfigError: a value outside its range, named with the range.
    """

    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        _require(0 <= self.temperature < float("inf"), "temperature", self.temperature, "0 (greedy) or more")
        _require(self.top_k >= 0, "top_k", self.top_k, "0 (all tokens) or more")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1 (all tokens)")
        _require(
            0 < self.repetition_penalty < float("inf"),
            "repetition_penalty",
            self.repetition_penalty,
            "above 0 (1 is none)",
        )
        _require(self.no_repeat_ngram >= 0, "no_repeat_ngram", self.no_repeat_ngram, "0 (none) or more")


def _require(holds: bool, name: str, value: float, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {expected}, found {value}")


def sample(
    logits_BV: Tensor, said_BT: Tensor, settings: SamplingSettings, generator: torch.Generator | None = None
) -> Tensor:
    """Choose one token for each sequence.

    Args:
        logits_BV: the model's logits, any float dtype; the choice is made in float32.
        said_BT: int64 tokens of the prompt and of what was generated, for the two penalties.
        settings: at temperature 0 the greatest logit wins (the lowest id of equals) and nothing is drawn.
        generator: the source of randomness, on the device of the logits.

    Returns:
        int64 token ids of shape (B,).

    Raises:
        TrainingError: a logit is NaN or +inf, or every logit is -inf: the model has diverged.
        ConfigError: `no_repeat_ngram` has left no token to choose.
    """
    logits_BV = logits_BV.float()
    # One reduction and one wait for the device, which the choice itself needs anyhow.
    if not torch.isfinite(logits_BV.amax(dim=-1)).all():
        raise TrainingError(
            "the model's logits are not finite: its weights have diverged, choose an earlier checkpoint"
        )
    logits_BV = penalize_repetition(logits_BV, said_BT, settings.repetition_penalty)
    logits_BV = forbid_repeated_ngrams(logits_BV, said_BT, settings.no_repeat_ngram)
    if settings.no_repeat_ngram and bool(torch.isneginf(logits_BV.amax(dim=-1)).any()):
        raise ConfigError(
            f"no_repeat_ngram = {settings.no_repeat_ngram} leaves none of the {logits_BV.shape[1]} tokens "
            f"to follow {said_BT.shape[1]} tokens: raise it, or generate fewer"
        )
    if settings.temperature == 0:
        return logits_BV.argmax(dim=-1)
    logits_BV = keep_top_k(scale(logits_BV, settings.temperature), settings.top_k)
    logits_BV = keep_top_p(logits_BV, settings.top_p)
    return torch.multinomial(torch.softmax(logits_BV, dim=-1), 1, generator=generator)[:, 0]


def scale(logits_BV: Tensor, temperature: float) -> Tensor:
    """Take away the greatest logit and divide by the temperature, which must be above 0.

    The greatest is 0 afterwards, so that no temperature, however small, makes an infinity of it.
    """
    temperature = max(temperature, torch.finfo(torch.float32).tiny)
    return (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / temperature


def penalize_repetition(logits_BV: Tensor, said_BT: Tensor, penalty: float) -> Tensor:
    """Divide positive logits of tokens already said by `penalty`, multiply negative ones (CTRL, 4.1)."""
    if penalty == 1 or said_BT.shape[1] == 0:
        return logits_BV
    said_logits_BT = logits_BV.gather(1, said_BT)
    penalized_BT = torch.where(said_logits_BT < 0, said_logits_BT * penalty, said_logits_BT / penalty)
    return logits_BV.scatter(1, said_BT, penalized_BT)


def forbid_repeated_ngrams(logits_BV: Tensor, said_BT: Tensor, n: int) -> Tensor:
    """Forbid each token that would end an n-gram which was said before; n = 0 forbids none."""
    if n == 0 or said_BT.shape[1] < n:
        return logits_BV
    ngrams_BTN = said_BT.unfold(1, n, 1)
    start_BN = said_BT[:, said_BT.shape[1] - n + 1 :]
    said_before_BT = (ngrams_BTN[..., :-1] == start_BN[:, None, :]).all(dim=-1)
    # Adding counts before comparing: scatter with an index that occurs twice would keep either value.
    times_BV = torch.zeros_like(logits_BV).scatter_add(
        1, ngrams_BTN[..., -1], said_before_BT.to(logits_BV.dtype)
    )
    return logits_BV.masked_fill(times_BV > 0, float("-inf"))


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Keep the k greatest logits and those equal to the smallest of them; k = 0 keeps all."""
    if k == 0 or k >= logits_BV.shape[1]:
        return logits_BV
    smallest_B1 = logits_BV.topk(k, dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < smallest_B1, float("-inf"))


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep the most probable tokens whose probabilities first sum to p or more (nucleus, Holtzman 2019)."""
    if p >= 1:
        return logits_BV
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
    probabilities_BV = torch.softmax(sorted_BV, dim=-1)
    before_BV = probabilities_BV.cumsum(dim=-1) - probabilities_BV
    dropped_BV = before_BV >= p
    dropped_BV[:, 0] = False
    return logits_BV.masked_fill(torch.zeros_like(dropped_BV).scatter(1, order_BV, dropped_BV), float("-inf"))
