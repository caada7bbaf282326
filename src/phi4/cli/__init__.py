"""The command line: `phi4 COMMAND --help` explains each command with examples."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import phi4
from phi4.cli import bench as benchmark
from phi4.cli import conversation, evaluate, models
from phi4.cli import curate as curation
from phi4.cli import serve as serving
from phi4.cli import train as training
from phi4.cli import verify as verification
from phi4.errors import Phi4Error

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for needs_arguments, command in (
    (True, conversation.ask),
    (False, conversation.chat),
    (True, conversation.transcribe),
    (False, models.pull),
    (True, models.init),
    (True, models.new_pack),
    (True, models.convert),
    (True, models.quantize),
    (False, models.inspect),
    (True, curation.curate),
    (True, curation.learn_quality),
    (True, training.train),
    (True, training.rate_law),
    (True, verification.verify),
    (True, evaluate.compare),
    (False, serving.serve),
    (False, benchmark.bench),
):
    app.command(no_args_is_help=needs_arguments)(command)
# `eval` is a function of Python's own.
app.command("eval", no_args_is_help=True)(evaluate.evaluate)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Say which version this is, and what it computes with.")
    ] = False,
) -> None:
    """Phi-4-Mini and Phi-4-Multimodal: text, pictures and sound. Without another, they take the model `nano`."""
    if version:
        # Importing torch takes a second, which `--help` does without.
        import torch

        from phi4.kernels.instructions import LEVELS

        kernels = f"native kernels ({LEVELS[0]})" if LEVELS else "no native kernels: plain torch does their work"
        print(f"phi4 {phi4.__version__}, torch {torch.__version__}, {kernels}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(app, arguments)


def run(commands: typer.Typer, arguments: Sequence[str] | None = None) -> None:
    """Runs a command. What the user can mend ends with one line on stderr and exit status 2."""
    try:
        commands(arguments)
    except (Phi4Error, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
