"""What every peer's program is called with, and the one line that it prints; plain Python, for any environment."""

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

# Ids that every vocabulary has, and that stand for no control token.
FIRST_ID, LAST_ID = 1000, 9999

Prompts = list[list[int]]
# Reads prompts that begin together, then takes a number of steps; returns the times at which the first tokens and the
# last ones were there.
Run = Callable[[Prompts, int], tuple[float, float]]


@dataclass(frozen=True)
class Sizes:
    """What is timed: a long prompt, steps of one row and of several behind short ones, and behind a long context.

    Attributes:
        cache_type: of the keys and values of the long context, as the peer names it; others have no use for it.
    """

    prompt_tokens: int
    decode_prompt_tokens: int
    new_tokens: int
    rows: int
    context_tokens: int
    cache_type: str


def read_arguments() -> tuple[str, Sizes]:
    """The weights' path and the sizes, from the command line that peers.py writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("sizes", type=json.loads)
    arguments = parser.parse_args()
    return arguments.weights, Sizes(**arguments.sizes)


def report(version: str, sizes: Sizes, run: Run) -> None:
    """Times everything once after a pass that warms up, and prints seconds as JSON."""
    random.seed(0)
    for _ in range(2):
        seconds = {
            "prefill": _prefill(run, sizes),
            "decode": _decode(run, sizes, 1),
            "decode_rows": _decode(run, sizes, sizes.rows),
        }
    print(json.dumps({"version": version, "seconds": seconds}))


def report_context(version: str, run: Callable[[], float]) -> None:
    """Times the steps behind a long context once after a pass that warms up; `run` returns their seconds."""
    run()
    print(json.dumps({"version": version, "seconds": {"decode_context": run()}}))


def _prefill(run: Run, sizes: Sizes) -> float:
    started = time.perf_counter()
    first, _ = run(_prompts(1, sizes.prompt_tokens), 0)
    return first - started


def _decode(run: Run, sizes: Sizes, rows: int) -> float:
    first, last = run(_prompts(rows, sizes.decode_prompt_tokens), sizes.new_tokens)
    return last - first


def _prompts(rows: int, tokens: int) -> Prompts:
    return [[random.randint(FIRST_ID, LAST_ID) for _ in range(tokens)] for _ in range(rows)]
