"""The made-up languages: texts keep their rules, scores see what breaks them, best losses are exact."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest

from pylm.made_up import addition, simple
from pylm.made_up.simple import SIMPLE, Simple
from pylm.made_up.simple_loss import full_history_loss, window_loss

State = tuple[str, tuple[str, ...]]  # the word so far with its end so far, and the starts of the last words


def test_best_losses_are_those_of_the_sources() -> None:
    assert full_history_loss() == pytest.approx(1.2413, abs=5e-5)
    assert window_loss(64) == pytest.approx(1.263, abs=2e-3)
    assert addition.best_loss() == pytest.approx(0.6445, abs=5e-5)
    assert addition.best_loss_without_adding() == pytest.approx(1.0017, abs=5e-5)


def follow(language: Simple, state: State) -> dict[tuple[str, State], float]:
    """The next character and state, with their probabilities, straight from the rules."""
    word, starts = state
    if word.endswith(";"):
        return {("\n", ("", starts)): 1.0}
    end = language.end_probability(len(word)) if word else 0.0
    found = {(";", (word + ";", starts)): end} if end else {}
    if end < 1:
        used = set(word) | (set() if word else set(starts))
        free = [letter for letter in language.letters_at(len(word)) if letter not in used]
        for letter in free:
            after = starts if word else ((*starts, letter)[1:] if language.memory else ())
            found[letter, (word + letter, after)] = (1 - end) / len(free)
    return found


def slow_window_losses(language: Simple, context: int) -> list[float]:
    """H(X[t+1] | X[1..t]) for t = 0..context: every text is enumerated, over every hidden state."""
    belief: dict[State, float] = {
        ("", starts): 1.0 for starts in itertools.permutations(language.consonants, language.memory)
    }
    stationary: dict[State, float] = defaultdict(float)  # how often each state is visited in one word
    while belief:
        following: dict[State, float] = defaultdict(float)
        for state, weight in belief.items():
            stationary[state] += weight
            for (_, after), p in follow(language, state).items():
                if after[0]:
                    following[after] += weight * p
        belief = following
    total = sum(stationary.values())
    beliefs: list[dict[State, float]] = [{state: weight / total for state, weight in stationary.items()}]
    entropies = []
    for _ in range(context + 1):  # one belief, not normalised, for each text so far
        nats, next_beliefs = 0.0, []
        for belief in beliefs:
            by_character: dict[str, dict[State, float]] = defaultdict(lambda: defaultdict(float))
            for state, weight in belief.items():
                for (character, after), p in follow(language, state).items():
                    by_character[character][after] += weight * p
            share = sum(belief.values())
            for next_belief in by_character.values():
                weight = sum(next_belief.values())
                nats -= weight * math.log(weight / share)
                next_beliefs.append(dict(next_belief))
        beliefs = next_beliefs
        entropies.append(nats)
    return entropies


@pytest.mark.parametrize(
    ("language", "context"),
    [
        (Simple("ae", "bcd", 1, (2, 4)), 8),
        (Simple("a", "bcd", 2, (2, 3)), 10),
        (Simple("ae", "bc", 0, (1, 3)), 8),
        (Simple("a", "bcdf", 3, (1,)), 12),
    ],
)
def test_window_loss_equals_enumeration(language: Simple, context: int) -> None:
    slow = slow_window_losses(language, context)
    for n in range(1, context + 1):
        assert window_loss(n, language) == pytest.approx(sum(slow[1 : n + 1]) / n, abs=1e-12)
    assert slow[-1] >= full_history_loss(language) - 1e-12


def test_a_window_long_enough_is_as_good_as_the_whole_history() -> None:
    assert window_loss(3000) == pytest.approx(full_history_loss(), abs=1e-3)


def test_full_history_loss_is_what_a_made_text_costs() -> None:
    text = simple.make(5000, seed=3)
    state: State = ("", ("x", "y", "z"))
    nats = 0.0
    for character in text:
        (after, p), *others = [(a, p) for (c, a), p in follow(SIMPLE, state).items() if c == character]
        assert not others
        nats -= math.log(p)
        state = after
    assert nats / len(text) == pytest.approx(full_history_loss(), abs=4e-3)


def test_made_texts_keep_every_rule_and_seeds_repeat() -> None:
    for language in (simple, addition):
        text = language.make(2000, seed=1)
        assert text == language.make(2000, seed=1) != language.make(2000, seed=2)
        found = language.score(text)
        assert (found.n_units, found.n_well_formed, found.n_right) == (2000, 2000, 2000)
    assert sorted(set(simple.make(2000, 0))) == sorted("aeioubcdfghjk;\n")  # the 15 characters of the source
    assert simple.make(2, 0) == "jicofu;\nfiko;\n"
    assert addition.make(2, 0) == "85 + 76 = 161;\n42 + 26 = 68;\n"


def test_scores_see_each_broken_rule() -> None:
    # Fine; starts as a recent word does; starts with a vowel; too short; a letter twice; fine; unfinished.
    found = simple.score("baco;\nbico;\nabuc;\nbac;\nbabi;\ncabi;\ndifo")
    assert (found.n_units, found.n_well_formed, found.n_right) == (6, 3, 2)
    found = addition.score("1 + 2 = 3;\n1 + 2 = 4;\n01 + 2 = 3;\n1 + 101 = 102;\n1+2=3;\n\n1 + 1 = 2;")
    assert (found.n_units, found.n_well_formed, found.n_right) == (6, 2, 1)
    assert addition.score("").share_right == 0
