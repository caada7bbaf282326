"""The law of the learning rate, fitted to real runs of a small model: what `phi4 rate-law` reads.

    PYTHON -m benchmarks.curation_gain FOLDER
    PYTHON -m benchmarks.rate_law FOLDER [--rates 2e-3 4e-3 8e-3 1.6e-2]

FOLDER has the model and the curated texts of `curation_gain`. The runs differ in steps and rate alone; they go into
FOLDER/rates, and those that are there already are not made again: add rates where the best one lies at the edge.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.curation_gain import stage
from phi4.train.rate_law import RateLaw, read_run
from phi4.train.run import MODEL_FOLDER, train_stage

STEPS = (52, 104, 208)
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2)


def main() -> None:
    """Trains what is not trained yet, fits the law, and prints both as Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    arguments = parser.parse_args()
    folder, runs = arguments.folder.resolve(), []
    for steps in sorted(arguments.steps):
        for rate in sorted(arguments.rates):
            run = folder / "rates" / f"{steps}-{rate:g}"
            if not (run / MODEL_FOLDER).exists():
                small = replace(stage(seed=0, steps=steps), learning_rate=rate, valid_every=steps)
                train_stage(small, folder / "models" / "0", (), folder / "data" / "curated", run, resume=True)
            runs.append(read_run(run))
    print("| tokens | rate | loss |", "|---|---|---|", sep="\n")
    for one in runs:
        print(f"| {one.tokens:,} | {one.learning_rate:g} | {one.loss:.3f} |")
    law = RateLaw.fit(runs)
    print(f"\nB = {law.scale:.3g}; fitted too, the exponent would be {law.free_exponent:.2f}")
    for best in law.best:
        print(f"best at {best.tokens:,.0f} tokens: {best.learning_rate:.2e}; the law says {law.rate(best.tokens):.2e}")


if __name__ == "__main__":
    main()
