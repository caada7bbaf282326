"""The rows of a drawing come to lie where those of its name lie on average: a language model reads them best there.

`python -m recipes.nano.settle --data DIR --pack FILE --out FILE`. Behind `sharpen`, which only puts them on the right
side of all other names (docs/decisions/0040-rows-settle.md).
"""

from pathlib import Path
from typing import Annotated

import typer

from recipes.nano.command import run
from recipes.nano.sharpen import teach

STEPS = 6000
LEARNING_RATE = 1e-3


def main(
    data: Annotated[Path, typer.Option(help="The folder with the folders of shards.")],
    pack: Annotated[Path, typer.Option(help="The vision pack to begin with.")],
    out: Annotated[Path, typer.Option(help="Gets the pack.")],
    steps: Annotated[int, typer.Option(help="Updates of the weights.", min=1)] = STEPS,
) -> None:
    """Trains the tower and the projector of a vision pack to give all drawings of a name the same rows."""
    teach(data, pack, out, "nano vision settle", steps, LEARNING_RATE, settled=True)


if __name__ == "__main__":
    run(main)
