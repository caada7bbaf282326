"""Draws nano's training curves: `python -m recipes.nano.report --runs DIR --out docs/nano-curves.svg`."""

import json
from pathlib import Path
from typing import Annotated

import matplotlib
import typer

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from phi4.errors import DataError
from phi4.train.log import METRICS_FILE
from recipes.nano.command import run

# Losses of single steps jump; the curve is their mean over this share of a run.
SMOOTHING_SHARE = 0.02
# Of a curve; more would only make the file larger.
MAX_POINTS = 100


def main(
    runs: Annotated[Path, typer.Option(help="The folder with a folder for each stage.")],
    out: Annotated[Path, typer.Option(help="The picture to write, SVG.")],
) -> None:
    """Draws the training and validation losses of every run, each in a panel of its own."""
    paths = sorted(runs.glob(f"*/{METRICS_FILE}"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise DataError(f"{runs} has no runs; name the folder in which each stage that was trained has its own")
    figure, panels = pyplot.subplots(len(paths), 1, figsize=(8, 2.6 * len(paths)), squeeze=False, layout="constrained")
    for path, panel in zip(paths, panels[:, 0], strict=True):
        draw_run(panel, path)
    figure.savefig(out, metadata={"Date": None})


def draw_run(panel: Axes, path: Path) -> None:
    """Draws one run: lines for training, dots for validation."""
    # The last line of a run that was killed may be unfinished.
    written = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines = [json.loads(line) for line in written if line.endswith("\n")]
    for number, name in enumerate(sorted({key for line in lines for key in line if key.endswith("/loss")})):
        points = [(line["step"], line[name]) for line in lines if name in line]
        steps, losses = zip(*points, strict=True)
        colour = f"C{number}"
        if name.startswith("valid/"):
            panel.plot(steps, losses, "o", color=colour, markersize=3, label=name)
        else:
            every = max(1, len(steps) // MAX_POINTS)
            panel.plot(steps[::every], smooth(losses)[::every], color=colour, linewidth=1, label=name)
    panel.set_title(path.parent.name)
    panel.set_xlabel("step")
    panel.set_ylabel("loss")
    panel.legend(fontsize="small")


def smooth(values: tuple[float, ...]) -> list[float]:
    """A running mean whose window is a small share of the run."""
    keep = 1 - 1 / max(1.0, SMOOTHING_SHARE * len(values))
    means = [values[0]]
    for value in values[1:]:
        means.append(keep * means[-1] + (1 - keep) * value)
    return means


if __name__ == "__main__":
    run(main)
