"""What a run reports: a progress bar, TensorBoard scalars, and one line of JSON for each report."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from phi4.errors import TrainingError

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class RunLog:
    """Writes the scalars of one run. Only the first of several processes has one."""

    def __init__(self, run: Path, name: str, steps: int, first_step: int) -> None:
        self.path = run / METRICS_FILE
        self._drop_from(first_step)
        self.board = SummaryWriter(str(run / TENSORBOARD_FOLDER), purge_step=first_step + 1)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=Console(stderr=True))
        self.task = self.bar.add_task(name, total=steps, completed=first_step, text="")

    def _drop_from(self, step: int) -> None:
        """Forgets what was reported after the checkpoint that training goes on from."""
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A process that was killed, or a full disk, may have left the last line unfinished.
            whole = [line for line in lines if line.endswith("\n")]
            kept = [line for line in whole if json.loads(line)["step"] <= step]
            partial = self.path.with_name(f".{self.path.name}.partial")
            try:
                partial.write_text("".join(kept), encoding="utf-8")
                partial.replace(self.path)
            finally:
                partial.unlink(missing_ok=True)

    def __enter__(self) -> "RunLog":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()
        self.board.close()

    def advance(self, step: int, text: str) -> None:
        """Moves the bar.

        Args:
            step: updates done.
            text: shown beside it.
        """
        self.bar.update(self.task, completed=step, text=text)

    def report(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes scalars of one step to TensorBoard and to `metrics.jsonl`.

        Raises:
            TrainingError: the disk is full, or the file cannot be written.
        """
        for name, value in scalars.items():
            self.board.add_scalar(name, value, step)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **scalars}) + "\n")
        except OSError as error:
            raise TrainingError(
                f"step {step}: {self.path} cannot be written: {error}; make room, and go on with --resume"
            ) from error
