"""The learning rate that a length of training wants, extrapolated from small runs: LR*(D) = B D^-0.32.

The exponent is published for Phi-4-Mini (facts sheet 8.1); B depends on model, batch and data, and is fitted.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from phi4.errors import TrainingError
from phi4.train.log import METRICS_FILE

EXPONENT = -0.32

# Runs whose numbers of tokens differ by less are of one length: rows are not packed to the last token.
SAME_LENGTH = 0.05


@dataclass(frozen=True)
class RateRun:
    """A finished run.

    Attributes:
        tokens: it was trained on.
        learning_rate: the highest.
        loss: on held-out data at the end.
    """

    tokens: float
    learning_rate: float
    loss: float


@dataclass(frozen=True)
class RateLaw:
    """LR*(D) = scale * D ** exponent.

    Attributes:
        scale: B, the rate for a single token.
        best: for each length, the rate at which a parabola through the best runs has its least loss, and that loss.
        free_exponent: what the exponent would be if it were fitted too; None with one length only.
    """

    scale: float
    best: tuple[RateRun, ...]
    free_exponent: float | None

    @classmethod
    def fit(cls, runs: Iterable[RateRun]) -> "RateLaw":
        """Finds the best rate of each length, and the one B that fits them all best in logarithms.

        Args:
            runs: for each number of tokens, at least three rates, of which neither the lowest nor the highest is best.

        Raises:
            TrainingError: there are no runs, a length has too few rates, or its best one lies at the edge.
        """
        best = tuple(_best_rate(group) for group in _by_length(runs))
        if not best:
            raise TrainingError("there are no runs to fit a law to; name the folders of finished ones")
        log_tokens = np.log([run.tokens for run in best])
        log_rates = np.log([run.learning_rate for run in best])
        scale = math.exp(float(np.mean(log_rates - EXPONENT * log_tokens)))
        free = float(np.polyfit(log_tokens, log_rates, 1)[0]) if len(best) > 1 else None
        return cls(scale, best, free)

    def rate(self, tokens: float) -> float:
        """The best rate for training on so many tokens."""
        return self.scale * tokens**EXPONENT


def _by_length(runs: Iterable[RateRun]) -> list[list[RateRun]]:
    groups: list[list[RateRun]] = []
    for run in sorted(runs, key=lambda run: run.tokens):
        if groups and run.tokens <= groups[-1][0].tokens * (1 + SAME_LENGTH):
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _best_rate(runs: Sequence[RateRun]) -> RateRun:
    """The minimum of the parabola, over the logarithm of the rate, through the best run and its two neighbours."""
    tokens = float(np.mean([run.tokens for run in runs]))
    in_order = groupby(sorted(runs, key=lambda run: run.learning_rate), key=lambda run: run.learning_rate)
    rates, losses = zip(*((rate, float(np.mean([run.loss for run in same]))) for rate, same in in_order), strict=True)
    if not all(math.isfinite(loss) for loss in losses):
        raise TrainingError(f"at {tokens:,.0f} tokens a loss is no number: {losses}; leave runs that diverged out")
    place = losses.index(min(losses))
    if not 0 < place < len(rates) - 1:
        missing = "three rates or more" if len(rates) < 3 else f"{'lower' if place == 0 else 'higher'} rates too"
        raise TrainingError(
            f"at {tokens:,.0f} tokens the best of the rates {', '.join(f'{rate:g}' for rate in rates)} is "
            f"{rates[place]:g}, at the edge; train with {missing}"
        )
    # Around the best run, so that the numbers stay small.
    offsets = np.log(np.array(rates[place - 1 : place + 2]) / rates[place])
    curvature, slope, height = np.polyfit(offsets, losses[place - 1 : place + 2], 2)
    minimum = -slope / (2 * curvature)
    return RateRun(tokens, rates[place] * math.exp(minimum), float(height + slope * minimum / 2))


def read_run(run: Path, dataset: str | None = None) -> RateRun:
    """Reads what a finished run of `phi4 train` reported.

    Args:
        run: its folder.
        dataset: whose held-out records count; None for the only one that has some.

    Raises:
        TrainingError: it is no finished run with held-out records of one such data set.
    """
    path = run / METRICS_FILE
    if not path.is_file():
        raise TrainingError(f"{run} holds no {METRICS_FILE}; name the folder of a run of `phi4 train`")
    try:
        reports = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise TrainingError(f"{path} is damaged: {error}; go on with --resume, or leave the run out") from error
    steps = [report for report in reports if "tokens" in report]
    names = sorted({key for report in reports for key in report if key.startswith("valid/") and key.endswith("/loss")})
    wanted = names if dataset is None else [name for name in names if name == f"valid/{dataset}/loss"]
    if not names:
        raise TrainingError(
            f"{run} has no held-out loss: its data hold no records of the split valid; add some, and train again"
        )
    if len(wanted) != 1:
        found = ", ".join(name.split("/")[1] for name in names)
        raise TrainingError(f"{run} has held-out losses of {found}; name one data set of these")
    scores = [report for report in reports if wanted[0] in report]
    if not steps or scores[-1]["step"] != steps[-1]["step"]:
        raise TrainingError(f"{run} is not finished: nothing was held against its last step; go on with --resume")
    return RateRun(
        tokens=steps[-1]["tokens"],
        learning_rate=max(report["learning_rate"] for report in steps),
        loss=scores[-1][wanted[0]],
    )
