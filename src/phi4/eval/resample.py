"""How sure a number is: bootstrap intervals, and paired comparison of two models on the same records."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phi4.eval.metrics import total
from phi4.eval.task import Total

Statistics = npt.NDArray[np.float64]

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its 95 % bootstrap interval over the records.

    Attributes:
        value: on all records.
        low: 2.5th percentile of the resamples.
        high: 97.5th.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much a metric moved from one model to another, on the same records.

    Attributes:
        value: second minus first.
        low: end of the 95 % bootstrap interval, records drawn for both models alike.
        high: its other end.
        p_value: share of random exchanges between the two models, record by record, that move the metric at least as
            much (paired approximate randomisation); 1 where no record differs.
    """

    value: float
    low: float
    high: float
    p_value: float


def estimate(kind: Total, statistics: Statistics, seed: int) -> Estimate:
    """The value and interval of one model.

    Args:
        kind: of the metric.
        statistics: what each record added, [records, statistics].
        seed: of the resamples.
    """
    values = [total(kind, _weighted(statistics, drawn)) for drawn in _draws(len(statistics), seed)]
    low, high = _interval(values)
    return Estimate(total(kind, statistics.sum(0)), low, high)


def compare(kind: Total, first: Statistics, second: Statistics, seed: int) -> Difference:
    """The difference between two models; arguments as for `estimate`, the records in the same order."""
    moved = total(kind, second.sum(0)) - total(kind, first.sum(0))
    resampled = [
        total(kind, _weighted(second, drawn)) - total(kind, _weighted(first, drawn))
        for drawn in _draws(len(first), seed)
    ]
    low, high = _interval(resampled)
    return Difference(moved, low, high, _p_value(kind, first, second, moved, seed))


def _draws(records: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """For each resample, how often each record is in it, [records]; a resample without anything cannot come."""
    generator, shares = np.random.default_rng(seed), np.full(records, 1 / records)
    return (generator.multinomial(records, shares) for _ in range(RESAMPLES))


def _weighted(statistics: Statistics, drawn: npt.NDArray[np.int64]) -> Statistics:
    sums = drawn @ statistics
    # All drawn records may have empty references; then the resample says nothing, and the whole stands for it.
    return sums if len(sums) < 2 or sums[1] else statistics.sum(0)


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _p_value(kind: Total, first: Statistics, second: Statistics, moved: float, seed: int) -> float:
    differ = (first != second).any(axis=1)
    if not differ.any():
        return 1.0
    generator, change = np.random.default_rng([seed, 1]), second[differ] - first[differ]
    as_extreme = 0
    for _ in range(RESAMPLES):
        carried = generator.integers(0, 2, size=len(change)) @ change
        exchanged = total(kind, second.sum(0) - carried) - total(kind, first.sum(0) + carried)
        as_extreme += abs(exchanged) >= abs(moved) - 1e-12
    return (as_extreme + 1) / (RESAMPLES + 1)
