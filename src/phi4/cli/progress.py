"""Progress bars on stderr that appear with the first report, so that quick work shows none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID


@contextmanager
def late_progress(description: str, *columns: ProgressColumn) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to report with: (done so far, in all).

    Args:
        description: shown by a column that asks for it.
        columns: of the bar.
    """
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
