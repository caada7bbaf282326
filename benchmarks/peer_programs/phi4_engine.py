"""This project's engine, for peers.py."""

import time
from pathlib import Path

from measure import Prompts, read_arguments, report

import phi4
from phi4.checkpoint.weights import load_model
from phi4.engine.engine import Engine
from phi4.engine.limits import SchedulerLimits
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.inputs import ModelInputs


def main() -> None:
    weights, sizes = read_arguments()
    together = sizes.rows * sizes.decode_prompt_tokens  # all rows begin in one step
    limits = SchedulerLimits(max_step_tokens=max(1024, together), max_rows=sizes.rows, reuse_prefixes=False)
    engine = Engine(load_model(Path(weights)).model, (), limits)

    def run(prompts: Prompts, steps: int) -> tuple[float, float]:
        requests = [Request(ModelInputs(tuple(ids)), Sampling(max_tokens=steps + 1)) for ids in prompts]
        times = []
        for _ in engine.generate(requests):
            times.append(time.perf_counter())
        return times[len(prompts) - 1], times[-1]

    report(phi4.__version__, sizes, run)


if __name__ == "__main__":
    main()
