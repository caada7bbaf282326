"""Runs a step of nano's training as a command of its own; what steps that go on from a vision pack are given."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import phi4.cli
from phi4.train.stage import MAX_SEED

Data = Annotated[Path, typer.Option("--data", help="The folder with the folders of shards.")]
BeginPack = Annotated[Path, typer.Option("--pack", help="The vision pack to begin with.")]
OutPack = Annotated[Path, typer.Option("--out", help="Gets the pack.")]
Steps = Annotated[int, typer.Option("--steps", help="Updates of the weights.", min=1)]
Seed = Annotated[
    int, typer.Option("--seed", help="Where chance begins: packs of several seeds have a mean.", min=0, max=MAX_SEED)
]


def run(step: Callable[..., None]) -> None:
    """Runs a function with typer's options; errors are told as `phi4` tells them."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(step)
    phi4.cli.run(app)
