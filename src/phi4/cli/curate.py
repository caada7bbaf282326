"""The command that curates: raw files to a folder of shards, with a report."""

import os
import sys
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

        phi4 curate recipes/curate.py:english --in raw --out curated

        phi4 curate recipes/curate.py:english --in raw --out curated --workers 8

        phi4 train recipes/vision.py:align --model M --pack P --data curated --out runs/align
    """
    # datatrove's bars; tqdm looks when it is imported.
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        from phi4.data.curate.run import curate as run
    except ModuleNotFoundError as error:
        raise ConfigError(f"curation needs {error.name}: pip install 'phi4[curate]'") from error

    result = run(recipe, raw, out, workers, executor, phi4.__version__, lambda text: print(text, file=sys.stderr))
    print(result.shards)
    print(result.report)
