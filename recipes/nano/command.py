"""Runs a step of nano's training as a command of its own."""

from collections.abc import Callable

import typer

import phi4.cli


def run(step: Callable[..., None]) -> None:
    """Runs a function with typer's options; errors are told as `phi4` tells them."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(step)
    phi4.cli.run(app)
