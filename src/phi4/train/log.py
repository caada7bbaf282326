"""What a run reports: a progress bar, TensorBoard scalars, and one line of JSON for each report."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from phi4.errors import TrainingError
from phi4.files import new_file

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"

# The time left follows from steps of the last hour: one step of a large stage may take minutes.
SPEED_SECONDS = 3600.0


class RunLog:
    """Writes the scalars of one run. Only the first of several processes has one."""

    def __init__(self, run: Path, name: str, steps: int, first_step: int) -> None:
        self.path = run / METRICS_FILE
        with self._writing():
            self._drop_from(first_step)
            self.board = SummaryWriter(str(run / TENSORBOARD_FOLDER), purge_step=first_step + 1)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=Console(stderr=True), speed_estimate_period=SPEED_SECONDS)
        self.task = self.bar.add_task(name, total=steps, completed=first_step, text="")

    def _drop_from(self, step: int) -> None:
        """Forgets what was reported after the checkpoint that training goes on from."""
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A process that was killed, or a full disk, may have left the last line unfinished.
            whole = [line for line in lines if line.endswith("\n")]
            kept = [line for line in whole if json.loads(line)["step"] <= step]
            with new_file(self.path) as partial:
                partial.write_text("".join(kept), encoding="utf-8")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Says what to do where a report cannot be written."""
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"the reports of the run {self.path.parent} cannot be written: {error}; make room, and go on with "
                "--resume"
            ) from error

    def __enter__(self) -> "RunLog":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()
        try:
            with self._writing():
                self.board.close()
        except TrainingError:
            # What ended the run says more.
            if error is None:
                raise

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
        with self._writing():
            for name, value in scalars.items():
                self.board.add_scalar(name, value, step)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **scalars}) + "\n")
