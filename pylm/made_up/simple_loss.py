"""The least possible loss on `simple`, exactly: with the whole history, and with windows cut out anywhere.

What the reader of a window does not know is where in a word it began, and how the words before its view
began. Both unknowns are symmetric in the letters: a letter that was not seen is any of those not seen. So
sums over places in a word and over the starts of the last words are all it takes.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator

from pylm.made_up.simple import END, SIMPLE, Simple


def full_history_loss(language: Simple = SIMPLE) -> float:
    """Return the least possible loss in nats a character when everything before is known."""
    nats = math.log(len(language.consonants) - language.memory)
    nats += sum(reached * entropy for reached, entropy in _letters(language))
    return nats / (sum(_places(language)) + len(END))


def window_loss(context: int, language: Simple = SIMPLE) -> float:
    """Return the least possible loss in nats a character over windows of `context` inputs and their targets.

    It is the mean of H(X[t+1] | X[1..t]) for t = 1..context, where X[1] stands anywhere in an endless text.
    """
    weights = _places(language)
    unknown = _new_words(context, language, _start_entropies(language, ()))
    # X[1] is a character of END, a consonant or a vowel; each place counts as often as it comes in a word.
    nats = sum(unknown[max(0, context - n_left_of_end)] for n_left_of_end in range(len(END)))
    for parity in (0, 1):
        places = {place: weights[place] for place in range(parity, len(weights), 2)}
        for weight, entropy in _first_words(language, places, 1, context):
            nats += weight * entropy
    return nats / (sum(weights) + len(END)) / context


def _places(language: Simple) -> list[float]:
    """The probability that a word has each of its places, the first of which it always has."""
    weights = [1.0]
    for place in range(1, max(language.lengths)):
        weights.append(weights[-1] * (1 - language.end_probability(place)))
    return weights


def _letters(language: Simple) -> Iterator[tuple[float, float]]:
    """After 1, 2, ... letters of a word: how probable that is, and the nats of what comes then."""
    for n_letters, reached in enumerate(_places(language), 1):
        yield reached, _next_entropy(language, language.end_probability(n_letters), 0, n_letters)


def _next_entropy(language: Simple, end: float, parity: int, n_seen: int) -> float:
    """Nats of what follows `n_seen` letters from a place of this parity on; END has probability `end`."""
    # Kinds alternate, so of the letters seen, n_seen // 2 are of the next one's kind, whichever came first.
    nats = -sum(p * math.log(p) for p in (end, 1 - end) if p > 0)
    if end == 1:
        return nats
    return nats + (1 - end) * math.log(len(language.letters_at(parity + n_seen)) - n_seen // 2)


def _first_words(
    language: Simple, places: dict[int, float], n_seen: int, n_left: int
) -> Iterator[tuple[float, float]]:
    """Follow the word in which the window began, at place p with weight places[p], after `n_seen` letters.

    Yields weights and nats: of each character that is predicted, and, for each way to come to the next word, of
    all that follows. The letters of places before p are any that were not seen, so the next letter is, for every
    p, any of those not seen of its kind: only the end tells the places apart.
    """
    weight = sum(places.values())
    if n_left == 0 or weight == 0:
        return
    ends = {p: w * language.end_probability(p + n_seen) for p, w in places.items()}
    end = sum(ends.values())
    parity = min(places) % 2
    yield weight, _next_entropy(language, end / weight, parity, n_seen)
    if end > 0 and n_left > len(END):
        from_start = ends.get(0, 0.0) / end
        first = _first_start(language, parity, n_seen, from_start)
        yield end, _new_words(n_left - len(END), language, _start_entropies(language, first))[-1]
    stays = {p: w - ends[p] for p, w in places.items() if w > ends[p]}
    if stays:
        yield from _first_words(language, stays, n_seen + 1, n_left - 1)


def _first_start(language: Simple, parity: int, n_seen: int, from_start: float) -> tuple[float, ...]:
    """The probability of each consonant to have begun the word of which `n_seen` letters were seen.

    Consonants are numbered in the order of the view. With probability `from_start` the word was seen whole
    and the first of them began it, otherwise any of those not seen.
    """
    n = len(language.consonants)
    n_seen_consonants = (n_seen + 1 - parity) // 2
    not_seen = (1 - from_start) / (n - n_seen_consonants) if from_start < 1 else 0.0
    return tuple(from_start * (k == 0) + not_seen * (k >= n_seen_consonants) for k in range(n))


def _new_words(n_left: int, language: Simple, start_entropies: tuple[float, ...]) -> list[float]:
    """Expected nats of the next 0..n_left characters where a word begins, given the starts' entropies."""
    letters = list(_letters(language))
    of_word = [0.0, *itertools.accumulate(reached * entropy for reached, entropy in letters)]
    lengths = [(reached * language.end_probability(n), n) for n, (reached, _) in enumerate(letters, 1)]
    last = len(start_entropies) - 1
    tables: list[list[float]] = [[0.0] * (last + 1)]  # by characters left, then by number of the word
    for n in range(1, n_left + 1):
        inside = of_word[min(n - 1, len(letters))]
        ways = [(p, tables[n - length - len(END)]) for p, length in lengths if n > length + len(END)]
        tables.append(
            [
                start_entropies[number] + inside + sum(p * table[min(number + 1, last)] for p, table in ways)
                for number in range(last + 1)
            ]
        )
    return [table[0] for table in tables]


def _start_entropies(language: Simple, first: tuple[float, ...]) -> tuple[float, ...]:
    """Expected nats of the start of the next word, of the one after, and so on to where they stay the same.

    `first` holds the probability of each consonant to be the newest start before; empty when nothing is
    known. The starts before it are any others, all distinct.
    """
    n, memory = len(language.consonants), language.memory
    belief = {
        starts: (first[starts[-1]] * n if first and memory else 1.0) / math.perm(n, memory)
        for starts in itertools.permutations(range(n), memory)
    }
    entropies = [0.0] * memory
    _add_start_entropies({starts: p for starts, p in belief.items() if p}, n, 0, entropies)
    return (*entropies, math.log(n - memory))


def _add_start_entropies(
    belief: dict[tuple[int, ...], float], n: int, depth: int, entropies: list[float]
) -> None:
    """Add to entropies[depth] the entropy of the next start, and go on with the belief after each.

    `belief` gives each sequence of the last starts a weight; they sum to the probability of coming here.
    """
    if depth == len(entropies):
        return
    total = sum(belief.values())
    following: dict[int, dict[tuple[int, ...], float]] = defaultdict(lambda: defaultdict(float))
    for starts, weight in belief.items():
        for start in range(n):
            if start not in starts:
                following[start][(*starts[1:], start)] += weight / (n - len(starts))
    for next_belief in following.values():
        weight = sum(next_belief.values())
        entropies[depth] -= weight * math.log(weight / total)
        _add_start_entropies(next_belief, n, depth + 1, entropies)
