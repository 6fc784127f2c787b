"""The made-up language `addition`: lines `a + b = s;` of two numbers and their sum."""

import math
import random
import re
from collections import Counter

from pylm.made_up.score import Score

LARGEST = 100  # a and b are uniform in 0..LARGEST

_LINE = re.compile(r"(0|[1-9][0-9]*) \+ (0|[1-9][0-9]*) = (0|[1-9][0-9]*);")


def make(count: int, seed: int) -> str:
    """Return `count` lines; the same seed gives the same lines everywhere."""
    # random() alone is promised to be the same in every Python version.
    source = random.Random(seed)
    pairs = ([int(source.random() * (LARGEST + 1)) for _ in range(2)] for _ in range(count))
    return "".join(_line(a, b) for a, b in pairs)


def score(text: str) -> Score:
    """Count the finished lines, those of the right form and range, and those whose sum is right."""
    lines = text.split("\n")[:-1]
    found = [match for line in lines if (match := _LINE.fullmatch(line))]
    numbers = [[int(group) for group in match.groups()] for match in found]
    in_range = [(a, b, s) for a, b, s in numbers if a <= LARGEST and b <= LARGEST]
    return Score(len(lines), len(in_range), sum(a + b == s for a, b, s in in_range))


def best_loss() -> float:
    """Return the least possible loss in nats a character: of one who can add, so that s is no surprise."""
    return _entropy_of_pair() / _mean_length()


def best_loss_without_adding() -> float:
    """Return the same for one who knows how often each sum comes, but cannot add."""
    sums = Counter(a + b for a, b in _pairs())
    total = sum(sums.values())
    entropy_of_sum = -sum(n / total * math.log(n / total) for n in sums.values())
    return (_entropy_of_pair() + entropy_of_sum) / _mean_length()


def _line(a: int, b: int) -> str:
    return f"{a} + {b} = {a + b};\n"


def _pairs() -> list[tuple[int, int]]:
    return [(a, b) for a in range(LARGEST + 1) for b in range(LARGEST + 1)]


def _entropy_of_pair() -> float:
    # The line can be read back from a and b and the other way round: nothing else is random in it.
    return 2 * math.log(LARGEST + 1)


def _mean_length() -> float:
    pairs = _pairs()
    return sum(len(_line(a, b)) for a, b in pairs) / len(pairs)
