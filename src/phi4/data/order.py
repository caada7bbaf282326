"""The order of the records: which record of which data set comes k-th, for every k and on every machine the same."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from phi4.errors import DataError

# Data sets are chosen so many draws at a time.
BLOCK_DRAWS = 4096

MAX_SEED = 2**64 - 1

# The last word of the counter keeps the two streams of random numbers apart, and both apart from augmentation's.
_CHOICES, _PERMUTATION = 1, 2


@dataclass(frozen=True)
class Draw:
    """One record's turn.

    Attributes:
        dataset: its data set.
        epoch: how often all records of the data set were drawn before.
        index: of the record in the data set.
    """

    dataset: str
    epoch: int
    index: int


class Order:
    """An endless order over weighted data sets.

    Data sets come at random, each as often as its weight says. Within an epoch each record of a data set comes once, in
    another order each epoch. Numbers are taken from Philox as they are: what numpy makes of them in its distributions
    may change between versions.
    """

    def __init__(self, sizes: Mapping[str, int], weights: Mapping[str, float], seed: int) -> None:
        """Checks the mixture.

        Args:
            sizes: number of records of each data set.
            weights: of each data set's draws among all; they need not sum to 1.
            seed: another one gives another order.

        Raises:
            DataError: the names differ, there are none, a data set is empty, or a weight or the seed is out of range.
        """
        check_seed(seed)
        if not sizes or set(sizes) != set(weights):
            raise DataError(f"the data sets are {sorted(sizes)}, but weights are given for {sorted(weights)}")
        for name in sizes:
            if sizes[name] < 1:
                raise DataError(f"the data set {name!r} has no records; leave it out")
            if not (math.isfinite(weights[name]) and weights[name] > 0):
                raise DataError(f"the weight of {name!r} is {weights[name]}; it must be above 0, or leave the set out")
        self._names = sorted(sizes)
        self._sizes = dict(sizes)
        self._seed = seed
        shares = np.cumsum([weights[name] for name in self._names], dtype=np.float64)
        self._bounds = shares[:-1] / shares[-1]
        # For each block, how often each data set was drawn before it.
        self._draws_before = [np.zeros(len(self._names), dtype=np.int64)]
        # Streams are seldom further apart than a block.
        self._choices = lru_cache(maxsize=2)(self._compute_choices)
        # At the border of an epoch two permutations of a data set are in use.
        self._permutation = lru_cache(maxsize=2 * len(self._names))(self._compute_permutation)

    def draw(self, k: int) -> Draw:
        """Returns the k-th draw, counted from 0: a function of sizes, weights, seed and k alone."""
        block, offset = divmod(k, BLOCK_DRAWS)
        while len(self._draws_before) <= block:
            counts = np.bincount(self._choices(len(self._draws_before) - 1), minlength=len(self._names))
            self._draws_before.append(self._draws_before[-1] + counts)
        choices = self._choices(block)
        choice = int(choices[offset])
        earlier = int(self._draws_before[block][choice]) + int(np.count_nonzero(choices[:offset] == choice))
        name = self._names[choice]
        epoch, position = divmod(earlier, self._sizes[name])
        return Draw(name, epoch, int(self._permutation(name, epoch)[position]))

    def _compute_choices(self, block: int) -> np.ndarray:
        """int64, [BLOCK_DRAWS]: the data set of each draw of a block, by its place among the sorted names."""
        numbers = self._philox(0, block, _CHOICES).random_raw(BLOCK_DRAWS)
        # The upper 53 bits fill a double in [0, 1).
        return np.searchsorted(self._bounds, (numbers >> np.uint64(11)) * 2.0**-53, side="right")

    def _compute_permutation(self, name: str, epoch: int) -> np.ndarray:
        identity = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        numbers = self._philox(epoch, identity, _PERMUTATION).random_raw(self._sizes[name])
        return np.argsort(numbers, kind="stable")

    def _philox(self, *words: int) -> np.random.Philox:
        """A stream of its own for each three words; the first word of the counter counts its numbers."""
        counter = np.array([0, *words], dtype=np.uint64)
        return np.random.Philox(key=np.array([self._seed, 0], dtype=np.uint64), counter=counter)


def check_seed(seed: int) -> None:
    """Refuses what is no key for Philox.

    Raises:
        DataError: the seed is out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise DataError(f"the seed is {seed}; it must be 0 to {MAX_SEED}")
