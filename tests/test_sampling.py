"""Sampling: each function against a slow twin in plain Python, the penalties also against transformers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pylm.errors import ConfigError, PylmError, TrainingError
from pylm.sampling import (
    SamplingSettings,
    forbid_repeated_ngrams,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    sample,
)

INF = float("inf")


@st.composite
def logits_and_said(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    n_sequences, n_vocabulary, n_said = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 6)),
        draw(st.integers(0, 14)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits_BV = torch.randn(n_sequences, n_vocabulary, generator=generator)
    said_BT = torch.randint(n_vocabulary, (n_sequences, n_said), generator=generator)
    return logits_BV, said_BT


def slow_penalty(logits: list[float], said: list[int], penalty: float) -> list[float]:
    return [
        x if i not in said else (x * penalty if x < 0 else x / penalty) for i, x in enumerate(logits)
    ]  # in float32 afterwards, as torch computes it


def slow_forbidden(said: list[int], n: int) -> set[int]:
    if n == 0:
        return set()
    start = said[len(said) - n + 1 :]
    return {said[i + n - 1] for i in range(len(said) - n + 1) if said[i : i + n - 1] == start}


def slow_top_p(probabilities: list[float], p: float) -> set[int]:
    kept: set[int] = set()
    total = 0.0
    for i in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
        if kept and total >= p:
            break
        kept.add(i)
        total += probabilities[i]
    return kept


@given(logits_and_said(), st.sampled_from([0.5, 1.0, 1.25, 2.0]))
@settings(deadline=None, max_examples=60)
def test_repetition_penalty_equals_its_slow_twin(data: tuple[Tensor, Tensor], penalty: float) -> None:
    logits_BV, said_BT = data
    expected = [
        slow_penalty(x, s, penalty) for x, s in zip(logits_BV.tolist(), said_BT.tolist(), strict=True)
    ]
    torch.testing.assert_close(penalize_repetition(logits_BV, said_BT, penalty), torch.tensor(expected))


@given(logits_and_said(), st.integers(0, 4))
@settings(deadline=None, max_examples=100)
def test_no_repeat_ngram_equals_its_slow_twin(data: tuple[Tensor, Tensor], n: int) -> None:
    logits_BV, said_BT = data
    found_BV = forbid_repeated_ngrams(logits_BV, said_BT, n)
    for found, logits, said in zip(found_BV.tolist(), logits_BV.tolist(), said_BT.tolist(), strict=True):
        forbidden = slow_forbidden(said, n)
        assert found == [-INF if i in forbidden else x for i, x in enumerate(logits)]


@given(logits_and_said(), st.integers(0, 7), st.sampled_from([0.01, 0.3, 0.5, 0.9, 1.0]))
@settings(deadline=None, max_examples=60)
def test_top_k_and_top_p_keep_the_most_probable(data: tuple[Tensor, Tensor], k: int, p: float) -> None:
    logits_BV, _ = data
    for logits, of_k, of_p in zip(
        logits_BV.tolist(), keep_top_k(logits_BV, k).tolist(), keep_top_p(logits_BV, p).tolist(), strict=True
    ):
        best = sorted(logits, reverse=True)[: k or None]
        assert of_k == [x if x in best else -INF for x in logits]
        kept = slow_top_p(torch.tensor(logits).softmax(0).tolist(), p)
        assert of_p == [x if i in kept else -INF for i, x in enumerate(logits)]


def test_top_k_keeps_equals_of_the_smallest_kept() -> None:
    assert keep_top_k(torch.tensor([[1.0, 2.0, 1.0, 0.0]]), 2).tolist() == [[1.0, 2.0, 1.0, -INF]]


@pytest.mark.parametrize("penalty", [0.7, 1.3, 2.0])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_penalties_equal_transformers(penalty: float, n: int) -> None:
    # Here, not above: their import takes 1.5 seconds.
    from transformers.generation.logits_process import (
        NoRepeatNGramLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
    )

    generator = torch.Generator().manual_seed(n)
    logits_BV = 4 * torch.randn(3, 7, generator=generator)
    said_BT = torch.randint(7, (3, 40), generator=generator)
    said_BT[:, -n:] = said_BT[:, 10 : 10 + n]
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(said_BT, logits_BV.clone())
    ours = penalize_repetition(logits_BV, said_BT, penalty)
    assert torch.equal(ours, theirs)
    theirs = NoRepeatNGramLogitsProcessor(n)(said_BT, theirs)
    assert torch.equal(forbid_repeated_ngrams(ours, said_BT, n), theirs)
    assert bool(torch.isneginf(theirs).any())


def draws(logits: list[float], sampling: SamplingSettings, n_draws: int = 20_000) -> list[float]:
    logits_BV = torch.tensor([logits]).expand(n_draws, -1)
    tokens_B = sample(
        logits_BV, torch.empty(n_draws, 0, dtype=torch.long), sampling, torch.Generator().manual_seed(0)
    )
    return (torch.bincount(tokens_B, minlength=len(logits)) / n_draws).tolist()


def test_frequencies_follow_the_tempered_softmax() -> None:
    logits = [0.5, -1.0, 2.0, 0.0]
    found = draws(logits, SamplingSettings(temperature=0.5, top_k=0))
    expected = torch.softmax(torch.tensor(logits) / 0.5, dim=0).tolist()
    # five standard deviations of a share among 20,000 draws
    assert all(abs(f - e) < 5 * math.sqrt(e * (1 - e) / 20_000) for f, e in zip(found, expected, strict=True))


def test_temperature_zero_and_tiny_ones_are_greedy_and_the_seed_decides_the_rest() -> None:
    logits = [0.5, 2.0, 1.99]
    for temperature in (0.0, 1e-320, 1e-30, 1e-6):
        assert draws(logits, SamplingSettings(temperature=temperature), 10)[1] == 1.0
    assert draws(logits, SamplingSettings(top_k=2), 50) == draws(logits, SamplingSettings(top_k=2), 50)
    assert draws(logits, SamplingSettings(top_k=1), 10)[1] == 1.0
    assert draws(logits, SamplingSettings(top_p=0.01), 10)[1] == 1.0


@pytest.mark.parametrize("bad", [math.nan, INF])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        sample(torch.tensor([[0.0, bad]]), torch.empty(1, 0, dtype=torch.long), SamplingSettings())


def test_a_penalty_that_leaves_no_token_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no_repeat_ngram = 1 leaves none of the 2 tokens"):
        sample(torch.zeros(1, 2), torch.tensor([[0, 1]]), SamplingSettings(no_repeat_ngram=1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("repetition_penalty", 0.0),
        ("no_repeat_ngram", -1),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(PylmError, match=f"{name} must be .*{value}"):
        SamplingSettings(**{name: value})
