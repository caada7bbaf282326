"""The commands that say what a checkpoint can do, and what changed from one to another."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from phi4.cli.conversation import load, named_packs
from phi4.cli.options import Bare, DeviceOption, DtypeOption, Json, Packs, print_json
from phi4.cli.progress import late_progress
from phi4.errors import InputError

if TYPE_CHECKING:
    from phi4.assistant import Assistant
    from phi4.eval.items import Items
    from phi4.eval.run import Settings
    from phi4.eval.task import Task


def evaluate(
    model: Annotated[str, typer.Argument(help="Model directory, `nano`, or pulled OWNER/NAME.")] = "nano",
    tasks: Annotated[str, typer.Option("--tasks", "-t", help="Names with commas between; --list shows them.")] = "",
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Folder with a file or folder per task. Default: the Hub."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for answers and results.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Items of each task, drawn at random.")] = None,
    shots: Annotated[int, typer.Option("--shots", help="Examples before each question, of tasks that have them.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of that draw and of the intervals.")] = 0,
    pack: Packs = None,
    bare: Bare = False,
    interference: Annotated[
        bool, typer.Option("--interference", help="Compare the base with no pack, each pack, and all.")
    ] = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    list_tasks: Annotated[bool, typer.Option("--list", help="Show the tasks and the data that they read.")] = False,
    json_output: Json = False,
) -> None:
    """Measure what a model can do, with 95 % intervals. The same command goes on where it was interrupted.

    With --interference the exit status is 1 if an answer to text depends on packs that it does not need.

    Examples:

        phi4 eval --list

        phi4 eval nano --tasks arc_easy,hellaswag --limit 100 --out results/nano

        phi4 eval ./Phi-4-mini --tasks mmlu --shots 5 --data benchmarks --out results/mini

        phi4 eval nano --tasks records --data examples/held_out --interference --out results/packs
    """
    if list_tasks:
        print_tasks()
        return
    if out is None or not tasks:
        raise InputError("an evaluation needs --tasks and --out; --list shows the tasks")
    from phi4.eval.provenance import describe_environment, describe_model
    from phi4.eval.registry import open_tasks
    from phi4.eval.results import to_markdown
    from phi4.eval.run import Settings
    from phi4.eval.run import evaluate as run_tasks

    settings = Settings(limit, seed)
    opened = open_tasks([name.strip() for name in tasks.split(",") if name.strip()], data, shots)
    packs = list(named_packs(model, pack, bare))

    def load_with(chosen: Sequence[Path]) -> "Assistant":
        return load(model, list(chosen), not chosen, dtype, device, "auto")

    with item_progress() as progress:
        if interference:
            is_kept = run_interference(model, load_with, packs, opened, out, settings, progress, json_output)
            raise typer.Exit(0 if is_kept else 1)
        assistant = load_with(packs)
        results = run_tasks(
            assistant,
            opened,
            out,
            settings,
            model=describe_model(model, packs, assistant),
            environment=describe_environment(assistant.loaded.model.device),
            progress=progress,
        )
    if json_output:
        from dataclasses import asdict

        print_json(asdict(results))
    else:
        Console().print(Markdown(to_markdown(results)))


def run_interference(
    model: str,
    load_with: "Callable[[Sequence[Path]], Assistant]",
    packs: Sequence[Path],
    opened: "Sequence[tuple[Task, Items]]",
    out: Path,
    settings: "Settings",
    progress: Callable[[int, int], None],
    json_output: bool,
) -> bool:
    """Measures and prints the report; returns whether text was left alone."""
    from phi4.eval.interference import REPORT_FILE, measure_interference, to_json

    report = measure_interference(model, load_with, packs, opened, out, settings, progress)
    if json_output:
        print_json(to_json(report))
    else:
        Console().print(Markdown((out / REPORT_FILE).read_text(encoding="utf-8")))
    return all(row.is_identical for row in report if not row.modalities)


def compare(
    first: Annotated[Path, typer.Argument(help="Folder that `phi4 eval --out` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same tasks.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the table with a plot.")] = None,
    json_output: Json = False,
) -> None:
    """Say which tasks moved from one evaluation to another, by how much, and whether chance explains it.

    Records are paired: intervals draw the same records for both, p is that of paired approximate randomisation.

    Examples:

        phi4 compare results/before results/after

        phi4 compare results/before results/after --out results/moved
    """
    from phi4.eval.comparison import compare_evaluations, to_markdown, write_comparison

    comparison = compare_evaluations(first, second)
    if out is not None:
        write_comparison(comparison, out)
    if json_output:
        print_json(comparison.to_json())
    else:
        Console().print(Markdown(to_markdown(comparison)))


def print_tasks() -> None:
    """Prints the tasks, what a row of their data has, and where on the Hub the data are."""
    from rich.table import Table

    from phi4.eval.registry import TASKS

    table = Table("task", "metric", "a row has", "on the Hub")
    for task in TASKS.values():
        if task.rows is not None:
            table.add_row(task.name, task.metrics[0].name, task.rows.fields, task.rows.repository or "")
    table.add_row("records", "exact match", "shards of the project's own records, with --data", "")
    Console().print(table)


def item_progress() -> AbstractContextManager[Callable[[int, int], None]]:
    """Shows a progress bar on stderr from the first answer on: (items so far, items in all)."""
    return late_progress("items", TextColumn("answering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
