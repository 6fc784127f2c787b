"""Windows come in a seeded order, each once an epoch, and depend on nothing but (tokens, seed, position)."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylm.batches import Windows, permute
from pylm.errors import ConfigError


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_permute_is_a_bijection(n: int, key: int) -> None:
    order = permute(np.arange(n, dtype=np.uint64), n, key)
    assert sorted(order.tolist()) == list(range(n))


def test_permute_of_one_index_equals_permute_of_all() -> None:
    n, key = 1_000_003, 42
    indices = np.array([0, 1, n // 2, n - 1], dtype=np.uint64)
    whole = permute(np.arange(n, dtype=np.uint64), n, key)
    assert permute(indices, n, key).tolist() == whole[indices].tolist()
    assert len(np.unique(whole)) == n


def test_the_order_looks_random() -> None:
    n = 10_000
    order = permute(np.arange(n, dtype=np.uint64), n, 7).astype(np.int64)
    rank_correlation = np.corrcoef(order, np.arange(n))[0, 1]
    assert abs(rank_correlation) < 0.05
    assert np.mean(np.diff(order) == 1) < 0.01


@given(st.integers(0, 500), st.integers(1, 64), st.integers(1, 8))
@settings(deadline=None, max_examples=50)
def test_a_batch_is_its_samples_whatever_the_micro_batch(first: int, count: int, parts: int) -> None:
    windows = Windows(np.arange(1000, dtype=np.uint16), context=7, seed=3)
    whole = windows.batch(first, count)
    cuts = np.linspace(0, count, parts + 1).astype(int)
    pieces = [windows.batch(first + a, b - a) for a, b in itertools.pairwise(cuts) if b > a]
    assert np.array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("n_tokens", [65, 64 * 10 + 1, 64 * 10 + 40])
def test_the_first_epoch_sees_every_target_once(n_tokens: int) -> None:
    context = 64
    windows = Windows(np.arange(n_tokens, dtype=np.uint32), context, seed=1)
    ids = windows.batch(0, windows.n_windows)
    targets = np.sort(ids[:, 1:].ravel())
    assert targets.tolist() == list(range(1, windows.n_windows * context + 1))
    assert np.array_equal(np.diff(ids, axis=1), np.ones((windows.n_windows, context)))


def test_epochs_differ_in_order_and_in_cuts() -> None:
    windows = Windows(np.arange(6401, dtype=np.uint16), context=64, seed=1)
    first, second = (windows.batch(epoch * windows.n_windows, windows.n_windows) for epoch in (0, 1))
    assert set(first[:, 0] % 64) == {0}
    assert len(set(second[:, 0] % 64) - {0}) > 0
    assert not np.array_equal(first[:, 0] // 64, second[:, 0] // 64)


def test_seeds_differ_and_repeat() -> None:
    tokens = np.arange(6401, dtype=np.uint16)
    first, again, other = (Windows(tokens, 64, seed).batch(0, 50) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_too_little_text_names_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"has 64 tokens, a window of context 64 needs 65"):
        Windows(np.arange(64, dtype=np.uint16), context=64, seed=0)
