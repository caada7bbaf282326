"""The commands that curate: raw files to a folder of shards with a report, labelled texts to a classifier."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

import phi4
from phi4.errors import ConfigError


def curate(
    recipe: Annotated[str, typer.Argument(help="FILE.py:CURATION.")],
    raw: Annotated[Path, typer.Option("--in", "-i", help="Folder of the raw files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder: shards, report, what was left out.")],
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Tasks at once; 1 uses this process.")] = 1,
    executor: Annotated[
        Literal["local", "slurm", "ray"],
        typer.Option("--executor", help="Slurm takes SBATCH_PARTITION and SBATCH_TIMELIMIT, Ray takes RAY_ADDRESS."),
    ] = "local",
) -> None:
    """Turn raw text, picture-text and speech-text files into shards for training, and account for every document.

    The recipe says what is read, which steps it passes and how much of each collection is taken. An interrupted run
    goes on where it was with the same command. The shards are the same whatever the number of workers. Needs
    `pip install 'phi4[curate]'`.

    Examples:

        phi4 curate recipes/curation/text.py:english --in raw --out curated

        phi4 curate recipes/curation/text.py:english --in raw --out curated --workers 8

        SBATCH_PARTITION=cpu SBATCH_TIMELIMIT=4:00:00 phi4 curate R.py:C --in RAW --out OUT --executor slurm
    """
    # datatrove's bars; tqdm looks when it is imported.
    os.environ.setdefault("TQDM_DISABLE", "1")
    with needed_packages():
        from phi4.data.curate.run import curate as run
    result = run(recipe, raw, out, workers, executor, phi4.__version__, lambda text: print(text, file=sys.stderr))
    print(result.shards)
    print(result.report)


def learn_quality(
    labelled: Annotated[Path, typer.Argument(help='JSON lines: {"text": TEXT, "good": true or false}.')],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of weights (safetensors) to write.")],
) -> None:
    """Learn a small quality classifier from labelled texts, for the step `quality(FILE)` of a curation.

    One text in ten is held out; accuracy and AUC are those on these.

    Example:

        phi4 learn-quality labelled.jsonl --out quality.safetensors
    """
    with needed_packages():
        from phi4.data.curate.quality import learn_quality as learn
        from phi4.data.curate.quality import read_labelled
    result = learn(list(read_labelled(labelled)), out)
    print(
        f"{out}: learnt from {result.examples:,} texts; on {result.held_out:,} others accuracy {result.accuracy:.3f}, "
        f"AUC {result.auc:.3f}"
    )


@contextmanager
def needed_packages() -> Iterator[None]:
    """Says how to get the packages that only curation needs, where one is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"curation needs {error.name}: pip install 'phi4[curate]'") from error
