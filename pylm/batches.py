"""Windows of tokens by number: a batch is a function of (tokens, seed, position), so resuming is a number.

Sample k of a run is window `k mod n` of epoch `k div n`, the windows of each epoch in an order of their own: a keyed
bijection of 0..n, computed for just the indices asked for. Nothing the size of the data is held or shuffled, and the
same samples come in the same order whatever the micro-batch, the accumulation or the number of devices.
"""

import numpy as np
import numpy.typing as npt

from pylm.dataset import Ids, ShardedTokens
from pylm.errors import ConfigError

_ROUNDS = 6  # of the Feistel network; 3 already give a pseudo-random permutation (Luby and Rackoff 1988)


class Windows:
    """The windows of `context` + 1 tokens of one split, in a seeded order.

    `tokens` maps n_tokens ids (1-d integer array, any width). Window w of epoch e starts at
    w x context + shift(e): successive windows share one token, so each target is seen once an epoch, and the
    shift (0 in the first epoch) moves the cuts between epochs. The last window is moved back to end with the data.
    """

    def __init__(self, tokens: Ids | ShardedTokens, context: int, seed: int) -> None:
        if len(tokens) < context + 1:
            raise ConfigError(
                f"the training split has {len(tokens):,} tokens, a window of context {context} needs {context + 1}: "
                "lower --context or add text"
            )
        self.tokens = tokens
        self.context = context
        self.seed = seed
        self.n_windows = (len(tokens) - 1) // context

    def epoch_of(self, sample: int) -> int:
        """The epoch that sample number `sample` belongs to."""
        return sample // self.n_windows

    def batch(self, first_sample: int, n_samples: int) -> Ids:
        """Samples first_sample .. first_sample + n_samples: ids (n_samples, context + 1), as they are on disk."""
        starts = self.starts(np.arange(first_sample, first_sample + n_samples, dtype=np.int64))
        ids: Ids = self.tokens[starts[:, None] + np.arange(self.context + 1)]
        return ids

    def starts(self, samples_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where the windows of these samples begin, in tokens."""
        epochs, indices = np.divmod(samples_N.astype(np.uint64), np.uint64(self.n_windows))
        starts = np.empty(len(samples_N), dtype=np.int64)
        for epoch in np.unique(epochs):  # one, seldom two; more only for data smaller than a batch
            mine = epochs == epoch
            order = permute(indices[mine], self.n_windows, key(self.seed, int(epoch)))
            starts[mine] = order.astype(np.int64) * self.context + self._shift(int(epoch))
        return np.minimum(starts, len(self.tokens) - self.context - 1)

    def _shift(self, epoch: int) -> int:
        return key(self.seed ^ 0x5317, epoch) % self.context if epoch else 0


def permute(indices: npt.NDArray[np.uint64], n: int, round_key: int) -> npt.NDArray[np.uint64]:
    """Map each of `indices` (uint64, below n) by a keyed bijection of 0..n.

    A balanced Feistel network over the smallest even number of bits that holds n, walked until the value falls below n
    (cycle walking, Black and Rogaway 2002): fewer than four steps on average.
    """
    half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
    values = _feistel(indices, half_bits, round_key)
    while (outside := values >= n).any():
        values[outside] = _feistel(values[outside], half_bits, round_key)
    return values


def key(seed: int, number: int) -> int:
    """A 64-bit key from a seed and a number (an epoch, a step): splitmix64's mixing, on Python integers."""
    with np.errstate(over="ignore"):
        return int(mix(mix(np.array([seed % 2**64], np.uint64)) ^ np.uint64(number % 2**64))[0])


def _feistel(values: npt.NDArray[np.uint64], half_bits: int, round_key: int) -> npt.NDArray[np.uint64]:
    mask = np.uint64((1 << half_bits) - 1)
    shift = np.uint64(half_bits)
    left, right = values >> shift, values & mask
    for round_number in range(_ROUNDS):
        round_function = mix(right ^ np.uint64((round_key + round_number * 0x9E3779B97F4A7C15) % 2**64))
        left, right = right, left ^ (round_function & mask)
    return (left << shift) | right


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
