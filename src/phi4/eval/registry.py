"""The tasks that there are, by the names that the command line takes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from phi4.errors import InputError
from phi4.eval.families import arithmetic, choices, code, held_out, instructions, pictures, prose, speech, tool_calls
from phi4.eval.items import Items, RowItems
from phi4.eval.task import Task

FAMILIES = (arithmetic, choices, code, instructions, prose, tool_calls, pictures, speech)
TASKS: dict[str, Task] = {task.name: task for family in FAMILIES for task in family.TASKS}
# Stands for the test records of all shards in the folder of data.
RECORDS = "records"


def open_tasks(names: Sequence[str], data: Path | None, shots: int = 0) -> list[tuple[Task, Items]]:
    """Finds tasks and their items.

    Args:
        names: of tasks, or "records" for the project's own shards; each once.
        data: folder with a file or folder for each task, or with folders of shards; None asks the Hub.
        shots: examples before each question.

    Raises:
        InputError: there is no such task, it is named twice, or it has no examples.
        DataError: there are no data for it.
    """
    unknown = [name for name in names if name not in TASKS and name != RECORDS]
    if unknown or not names:
        raise InputError(f"there is no task {', '.join(unknown) or 'named'}; there are {', '.join([*TASKS, RECORDS])}")
    if len(set(names)) < len(names):
        raise InputError(f"a task is named twice in {', '.join(names)}; name each once")
    if shots < 0:
        raise InputError(f"shots must be at least 0 examples, not {shots}")
    if shots and RECORDS in names:
        raise InputError("records have no examples to put before them; set shots to 0, or name other tasks")
    opened: list[tuple[Task, Items]] = []
    for name in names:
        if name == RECORDS and data is None:
            raise InputError("records are read from shards; name the folder that holds them with --data")
        if name == RECORDS and data is not None:
            opened += held_out.read_held_out_tasks(data)
        else:
            task = replace(TASKS[name], shots=shots)
            opened.append((task, RowItems.open(task, data)))
    return opened
