"""The commands that train: one stage of a recipe, or a table of stages; the learning rate that small runs speak for."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from phi4.cli.options import Device, Dtype, Model
from phi4.errors import ConfigError

if TYPE_CHECKING:
    from phi4.train.run import RunResult
    from phi4.train.stage import Stage

RECIPES = Path("recipes")


def train(
    recipe: Annotated[str | None, typer.Argument(help="FILE.py:STAGE; with --list, FILE.py.")] = None,
    model: Model = "nano",
    pack: Annotated[
        list[Path] | None,
        typer.Option("--pack", help="File with a modality as it is before the stage; repeatable. Default: none."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="One folder of shards per data set.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run: checkpoints, logs, result.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the run's last checkpoint.")] = False,
    steps: Annotated[int | None, typer.Option("--steps", help="Train shorter or longer than the recipe.")] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            "--dtype",
            help="What the model computes in; packs have the base's type. Default: as stored, float32 on a CPU without "
            "bf16 arithmetic.",
        ),
    ] = None,
    device: Annotated[Device | None, typer.Option("--device", help="Default: CUDA if there, else cpu.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=0, help="Processes that prepare examples. Default: one per core with CUDA, else 0."
        ),
    ] = None,
    rounded_base: Annotated[
        bool,
        typer.Option(
            "--rounded-base",
            help="Multiply with the frozen language model in 8 bits, which is faster on a CPU; what trains is "
            "multiplied as it is.",
        ),
    ] = False,
    list_stages: Annotated[bool, typer.Option("--list", help="Show the stages of one recipe or of all.")] = False,
) -> None:
    """Train one stage: the parts that it names, on frozen everything else; writes a pack for each modality it trained.

    A stage that trains the language model takes one without modalities and writes it into OUT/model.

    A signal (Ctrl-C, SIGTERM) saves and ends; --resume continues bit for bit. Under torchrun the same command shares
    the rows of each step among processes.

    Examples:

        phi4 train --list

        phi4 train recipes/vision.py:align --model M --pack vision.safetensors --data shards --out runs/align

        phi4 train recipes/language.py:pretrain --model M --data FOLDER --out runs/pretrain

    `pretrain` reads FOLDER/text: what a curation wrote whose function is called text, or its folder under that name.

        torchrun --nproc-per-node 2 -m phi4 train recipes/vision.py:align --model M --pack P --data D --out R
    """
    if list_stages:
        print_stages([Path(recipe.partition(":")[0])] if recipe else sorted(RECIPES.glob("*.py")))
        return
    if recipe is None or data is None or out is None:
        raise ConfigError("training needs a stage (FILE.py:STAGE), --data and --out; --list shows the stages there are")
    from dataclasses import replace

    import torch

    from phi4.assistant import check_device
    from phi4.checkpoint import hub
    from phi4.train.recipe import load_stage
    from phi4.train.run import train_stage

    stage = load_stage(recipe)
    if steps is not None:
        stage = replace(stage, steps=steps)
    chosen = check_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    result = train_stage(
        stage,
        hub.resolve(model),
        pack or (),
        data,
        out,
        resume=resume,
        device=chosen,
        dtype=None if dtype is None else getattr(torch, dtype),
        workers=workers if workers is not None else default_workers(chosen),
        rounded_base=rounded_base,
    )
    if result.skipped:
        print(describe_skipped(result), file=sys.stderr)
    if result.interrupted is not None:
        print(f"stopped at step {result.step} of {stage.steps}; --resume continues")
        raise typer.Exit(128 + result.interrupted)
    for path in (*result.packs.values(), *([result.model] if result.model else [])):
        print(path)


def describe_skipped(result: "RunResult") -> str:
    """What a run left out, in one line: whoever reads it can find the records."""
    counts = ", ".join(f"{kind} {number:,}" for kind, number in sorted(result.skipped.items()))
    draws = sum(result.skipped.values())
    return (
        f"skipped {draws:,} {'draw' if draws == 1 else 'draws'} of records that cannot be used ({counts}); "
        f"the first: {'; '.join(result.first_skipped)}"
    )


def rate_law(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs of one stage.")],
    tokens: Annotated[float, typer.Option("--tokens", min=1, help="Length of training to find a rate for: 5e12.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Whose held-out loss counts, if there are several.")
    ] = None,
) -> None:
    """Fit LR*(D) = B D^-0.32, Phi-4-Mini's law of the learning rate, to small runs, and say the rate for a long one.

    The runs differ in steps and learning rate alone: for each number of steps three rates or more, the best of which
    is neither the lowest nor the highest. Warm-up should be the same share of each.

    Example:

        phi4 rate-law runs/steps-*-rate-* --tokens 5e12
    """
    from phi4.train.rate_law import EXPONENT, RateLaw, read_run

    law = RateLaw.fit(read_run(run, dataset) for run in runs)
    table = Table("tokens", "best rate", "by the law", "loss there")
    for best in law.best:
        table.add_row(
            f"{best.tokens:,.0f}", f"{best.learning_rate:.3g}", f"{law.rate(best.tokens):.3g}", f"{best.loss:.4f}"
        )
    Console().print(table)
    free = "" if law.free_exponent is None else f"; fitted freely, the exponent would be {law.free_exponent:.3f}"
    print(f"LR*(D) = {law.scale:.4g} D^{EXPONENT}{free}")
    print(f"LR*({tokens:.4g}) = {law.rate(tokens):.3g}")


def default_workers(device: Device) -> int:
    """CUDA is fed by all of the processor, shared with torchrun's others; a CPU that trains has no time to spare."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // processes) if device == "cuda" else 0


def print_stages(paths: list[Path]) -> None:
    """Prints a table of the stages in these recipes."""
    from phi4.train.recipe import load_stages
    from phi4.train.stage import LANGUAGE

    table = Table(Column("stage", overflow="fold"), "trains", "frozen", "data", "steps", title="stages")
    for path in paths:
        for name, stage in load_stages(path).items():
            trains = "\n".join(stage.trains)
            frozen = "nothing" if LANGUAGE in stage.trains else "all else"
            table.add_row(f"{path}:{name}", trains, frozen, describe_data(stage), f"{stage.steps:,}")
    if not table.row_count:
        raise ConfigError("there are no recipes here; name a file: phi4 train --list recipes/vision.py")
    Console().print(table)


def describe_data(stage: "Stage") -> str:
    """What a stage learns from, in one cell."""
    sources = "\n".join(f"{source.dataset} × {source.weight:g}" for source in stage.sources)
    return f"{stage.about}\n{sources}" if stage.about else sources
