"""How tokens per second grow with the rows that are answered together, and what the engine takes beside the model.

python benchmarks/engine_rows.py --model nano --rows 1 4 16
"""

import argparse
import statistics
import time
from typing import Any

import torch

from phi4 import Assistant, Sampling
from phi4.engine.engine import Engine
from phi4.engine.limits import SchedulerLimits
from phi4.engine.request import Request
from phi4.inputs import ModelInputs

PROMPT_TOKENS = 64
NEW_TOKENS = 64


class Timed:
    """A model that adds up the time that its calls take."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def _timed(self, function: Any, *arguments: Any) -> Any:
        started = time.perf_counter()
        result = function(*arguments)
        self.seconds += time.perf_counter() - started
        return result

    def __call__(self, embeddings: torch.Tensor, step: Any) -> torch.Tensor:
        """Runs the layers."""
        return self._timed(self.model, embeddings, step)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Looks tokens up."""
        return self._timed(self.model.embed, token_ids)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores the vocabulary."""
        return self._timed(self.model.logits, hidden)


def requests(num_rows: int, round_number: int) -> list[Request]:
    """Random prompts that no two rows and no two rounds share."""
    generator = torch.Generator().manual_seed(1000 * num_rows + round_number)
    ids = torch.randint(100, 20_000, (num_rows, PROMPT_TOKENS), generator=generator).tolist()
    return [Request(ModelInputs(tuple(row)), Sampling(max_tokens=NEW_TOKENS)) for row in ids]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = Timed(Assistant.load(arguments.model, packs=(), device="cpu").loaded.model)
    engine = Engine(model, (), SchedulerLimits())
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {PROMPT_TOKENS} + {NEW_TOKENS} tokens per row"
    )
    found: dict[int, list[tuple[float, float]]] = {num_rows: [] for num_rows in arguments.rows}
    for round_number in range(arguments.rounds + 1):
        for num_rows in arguments.rows:
            model.seconds, started = 0.0, time.perf_counter()
            num_tokens = sum(1 for _ in engine.generate(requests(num_rows, round_number)))
            seconds = time.perf_counter() - started
            if round_number > 0:  # the first one warms up
                found[num_rows].append((num_tokens / seconds, 1 - model.seconds / seconds))
    for num_rows, results in found.items():
        speed, overhead = (statistics.median(values) for values in zip(*results, strict=True))
        print(f"{num_rows} rows: {speed:.1f} tokens/s together, {100 * overhead:.1f} % outside the model")


if __name__ == "__main__":
    main()
