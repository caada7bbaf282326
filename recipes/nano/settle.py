"""The rows of a drawing come to lie where those of its name lie on average: a language model reads them best there.

`python -m recipes.nano.settle --data DIR --pack FILE --out FILE`. Behind `sharpen`, which only puts them on the right
side of all other names (docs/decisions/0040-rows-settle.md).
"""

import torch

from recipes.nano.command import BeginPack, Data, OutPack, Seed, Steps, run
from recipes.nano.lesson import prepare
from recipes.nano.sharpen import OTHERS, teach

STEPS = 4000
LEARNING_RATE = 1e-3


def main(data: Data, pack: BeginPack, out: OutPack, steps: Steps = STEPS, seed: Seed = 0) -> None:
    """Trains the tower and the projector of a vision pack to give all drawings of a name the same rows."""
    torch.manual_seed(seed)
    lesson = prepare(data, pack, OTHERS)
    # Those by which rows have lain so far decide where they are to lie.
    teach(lesson, out, ("nano vision settle", steps, LEARNING_RATE), lesson.places(), seed)


if __name__ == "__main__":
    run(main)
