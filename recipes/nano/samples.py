"""Copies a few test records of every task: `python -m recipes.nano.samples --data DIR --out examples/held_out`.

They are small enough for the repository, so that `phi4 verify nano --data examples/held_out` needs nothing else.
"""

from pathlib import Path
from typing import Annotated

import typer

from phi4.data.shards import write_shards
from phi4.score import read_held_out
from recipes.nano.command import run

PER_TASK = 4


def main(
    data: Annotated[Path, typer.Option(help="What recipes.nano.build wrote.")],
    out: Annotated[Path, typer.Option(help="Gets one folder of shards for each data set.")],
) -> None:
    """Draws records of every task."""
    held_out = read_held_out(data)
    for dataset in dict.fromkeys(one.dataset for one in held_out):
        records = [record for one in held_out if one.dataset == dataset for record in one.records.sample(PER_TASK)]
        write_shards(records, out / dataset)


if __name__ == "__main__":
    run(main)
