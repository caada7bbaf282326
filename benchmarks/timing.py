"""Times functions that take turns, so that a machine whose speed drifts is fair to all."""

import statistics
import time
from collections.abc import Callable, Mapping


def alternate(
    functions: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Returns the median seconds of each function over some rounds, after one round that is not counted.

    With one thread and `time.process_time` as the clock, other work on the machine hardly counts.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(rounds + 1):
        for name, function in functions.items():
            started = clock()
            function()
            if round_number > 0:
                times[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in times.items()}
