"""The command that measures how fast a model runs here, and how near that is to what the machine allows."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from phi4.cli.conversation import load
from phi4.cli.options import Bare, DeviceOption, DtypeOption, Json, Model, Packs, print_json
from phi4.cli.progress import late_progress

if TYPE_CHECKING:
    from phi4.bench.report import Report


def bench(
    model: Model = "nano",
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", help="Length of the prompt to read.", min=1)] = 512,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Decoding steps to time.", min=1)] = 32,
    rows: Annotated[int, typer.Option("--rows", help="Conversations in batched decoding.", min=1)] = 16,
    rounds: Annotated[int, typer.Option("--rounds", help="The medians are of this many.", min=1)] = 3,
    pack: Packs = None,
    bare: Bare = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    json_output: Json = False,
) -> None:
    """Measure a model on this machine: reading a prompt, decoding one row and many, loading, memory.

    Beside each speed stands the most that the machine allows, from its own measured read bandwidth and rate of matrix
    products: the bytes of the weights over the one, the operations over the other.

    Examples:

        phi4 bench

        phi4 bench --model ./Phi-4-mini --rounds 5 --json

        phi4 bench --prompt-tokens 2048 --rows 64
    """
    from phi4.bench.report import run_benchmark
    from phi4.bench.speed import Sizes

    sizes = Sizes(prompt_tokens, new_tokens, rows)
    with round_progress() as progress:
        report = run_benchmark(model, lambda: load(model, pack, bare, dtype, device, "auto"), sizes, rounds, progress)
    if json_output:
        print_json(asdict(report))
    else:
        print_report(report)


def print_report(report: "Report") -> None:
    """Prints a report for people."""
    console = Console()
    kernels = f"native kernels ({report.kernels})" if report.kernels else "no native kernels"
    table = Table("", "tokens/s", "at most", "reached", "held back by", title=Text(report.model))
    for name, rate in (
        (f"reading {report.prompt_tokens} tokens", report.prefill),
        ("decoding 1 row", report.decode),
        (f"decoding {report.decode_rows.rows} rows", report.decode_rows),
    ):
        table.add_row(
            name,
            f"{rate.tokens_per_s:.1f}",
            f"{rate.limit_tokens_per_s:.1f}",
            f"{rate.percent_of_limit:.0f} %",
            rate.bound,
        )
    console.print(table)
    machine = report.machine
    for line in (
        f"loaded in {report.load_s:.2f} s, {report.peak_resident_bytes / 2**30:.2f} GiB at the peak; "
        f"{report.tensor_bytes / 1e9:.2f} GB of weights, of which a step reads {report.step_bytes / 1e9:.2f} GB",
        f"this machine: reads {machine.read_bytes_per_s / 1e9:.1f} GB/s, multiplies {machine.product} at "
        f"{machine.operations_per_s / 1e9:,.0f} G operations/s",
        f"{report.device}, {report.threads} threads, {report.dtype}, torch {report.torch}, {kernels}; "
        f"medians of {report.rounds} rounds",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def round_progress() -> AbstractContextManager[Callable[[int, int], None]]:
    """Shows a progress bar on stderr from the loaded model on: (parts so far, parts in all)."""
    return late_progress("rounds", TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
