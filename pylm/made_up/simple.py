"""The made-up language `simple`: words of alternating consonants and vowels under three rules."""

import random
from collections import deque
from dataclasses import dataclass

from pylm.errors import ConfigError
from pylm.made_up.score import Score

END = ";\n"  # of every word


@dataclass(frozen=True)
class Simple:
    """The rules.

    A word starts with a consonant that none of the last `memory` words started with; then vowels and
    consonants alternate; no letter comes twice in a word; its length is each of `lengths` equally often.
    """

    vowels: str = "aeiou"
    consonants: str = "bcdfghjk"
    memory: int = 3
    lengths: tuple[int, ...] = (4, 6)

    def __post_init__(self) -> None:
        longest = max(self.lengths)
        if len(self.consonants) < max((longest + 1) // 2, self.memory + 1):
            raise ConfigError(
                f"{len(self.consonants)} consonants: too few for {longest} letters and memory {self.memory}"
            )
        if len(self.vowels) < longest // 2:
            raise ConfigError(f"{len(self.vowels)} vowels are too few for words of {longest} letters")

    def letters_at(self, position: int) -> str:
        """Return the letters that may stand at a position of a word, counted from 0."""
        return self.vowels if position % 2 else self.consonants

    def end_probability(self, n_letters: int) -> float:
        """Return the probability that a word which has `n_letters` ends there."""
        return (n_letters in self.lengths) / max(1, sum(length >= n_letters for length in self.lengths))


SIMPLE = Simple()


def make(count: int, seed: int, language: Simple = SIMPLE) -> str:
    """Return `count` words, a line each; the same seed gives the same words everywhere."""
    # random() alone is promised to be the same in every Python version.
    source = random.Random(seed)
    starts: deque[str] = deque(maxlen=language.memory)
    words = []
    for _ in range(count):
        length = language.lengths[int(source.random() * len(language.lengths))]
        word = ""
        for position in range(length):
            used = {*word, *starts} if position == 0 else set(word)
            free = [letter for letter in language.letters_at(position) if letter not in used]
            word += free[int(source.random() * len(free))]
        starts.append(word[0])
        words.append(word + END)
    return "".join(words)


def score(text: str, language: Simple = SIMPLE) -> Score:
    """Count the finished words, those well-formed in themselves, and those that start rightly as well."""
    words = text.split(END)[:-1]
    starts: deque[str] = deque(maxlen=language.memory)
    n_well_formed = n_right = 0
    for word in words:
        well_formed = is_well_formed(word, language)
        n_well_formed += well_formed
        n_right += well_formed and word[0] not in starts
        starts.append(word[:1])
    return Score(len(words), n_well_formed, n_right)


def is_well_formed(word: str, language: Simple = SIMPLE) -> bool:
    """Tell whether a word, without its end, keeps the rules that do not look at other words."""
    in_place = all(letter in language.letters_at(position) for position, letter in enumerate(word))
    return len(word) in language.lengths and in_place and len(set(word)) == len(word)
