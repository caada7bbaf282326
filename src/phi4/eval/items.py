"""Where a task's items come from: rows of files, or the held-out records of the project's own shards."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet

from phi4.errors import DataError, InputError
from phi4.eval.examples import NO_EXAMPLES, Examples, choose_examples
from phi4.eval.rows import SourceRow, find_files, read_rows
from phi4.eval.task import Item, Rows, Task
from phi4.files import file_digest
from phi4.processing.messages import Part

# What becomes of values of the wrong type, whichever way a task reads them.
UNREADABLE = (AttributeError, LookupError, RecursionError, SyntaxError, TypeError, ValueError)


class Items(Protocol):
    """The items of a task, in an order that never changes."""

    def __len__(self) -> int:
        """How many there are."""

    def select(self, indices: Sequence[int]) -> Iterator[Item]:
        """Reads some of them; the indices ascend."""

    def describe(self) -> dict[str, Any]:
        """What says which data these are: files and digests."""


@dataclass(frozen=True)
class RowItems:
    """Items made of the rows of files.

    Attributes:
        task: its name.
        rows: says how.
        files: in the order in which they count.
        examples: that stand before each question.
    """

    task: str
    rows: Rows
    files: tuple[Path, ...]
    examples: Examples = NO_EXAMPLES

    @classmethod
    def open(cls, task: Task, data: Path | None) -> "RowItems":
        """Finds a task's files.

        Args:
            task: the task.
            data: folder that holds a file or folder with the task's name; None asks the Hub.

        Raises:
            DataError: there are none, or they hold no rows, or too few examples.
            InputError: examples are asked for, but the data set has none.
        """
        rows = task.rows
        assert rows is not None
        path = None if data is None else _named(task.name, data)
        files = find_files(task.name, rows.files, rows.repository, path, rows.beside)
        items = cls(task.name, rows, tuple(files))
        if not len(items):
            raise DataError(f"{task.name}: {', '.join(map(str, items.files))} is empty; there is nothing to ask")
        if not task.shots:
            return items
        if rows.examples is None:
            raise InputError(
                f"{task.name} has no examples to put before a question: its data set keeps none apart; set shots to 0"
            )
        found = find_files(task.name, rows.examples, rows.repository, path, fitting_only=True)
        shown = cls(task.name, rows, tuple(found))
        examples = choose_examples(task.name, task.shots, shown._select(range(len(shown))), shown.describe())
        return replace(items, examples=examples)

    def __len__(self) -> int:
        return sum(self._counts)

    @cached_property
    def _counts(self) -> list[int]:
        return [_count(file, self.rows.columns) for file in self.files]

    def select(self, indices: Sequence[int]) -> Iterator[Item]:
        """Reads some of them, behind their examples; the indices ascend. Other rows are not made items."""
        return map(self.examples.before, self._select(indices))

    def _select(self, indices: Sequence[int]) -> Iterator[Item]:
        wanted, number = iter(indices), 0
        following = next(wanted, None)
        for file in self.files:
            for row in read_rows(file, self.rows.columns):
                if number == following:
                    yield self._read(row)
                    following = next(wanted, None)
                    if following is None:
                        return
                number += 1

    def _read(self, row: SourceRow) -> Item:
        try:
            try:
                return self.rows.read(row)
            except UNREADABLE as error:
                raise row.error(f"a value is of another kind than it should be: {error!r}") from error
        except DataError as error:
            raise DataError(f"{error}. A row of {self.task} has {self.rows.fields}") from error

    def describe(self) -> dict[str, Any]:
        """File names and their SHA-256, those of the examples too."""
        return {file.name: file_digest(file) for file in self.files} | dict(self.examples.files)


def _named(task: str, data: Path) -> Path:
    """The file or folder of a task in a folder of data."""
    if data.is_file():
        return data
    for path in (data / task, *sorted(data.glob(f"{task}.*"))):
        if path.exists():
            return path
    raise DataError(
        f"{task}: {data} holds neither a folder {task} nor a file of that name; put the data there, or leave --data "
        "out to take it from the Hub"
    )


def _count(file: Path, columns: Sequence[str]) -> int:
    """How many rows a file has; Parquet says it without reading them."""
    if file.suffix == ".parquet":
        try:
            return int(pyarrow.parquet.read_metadata(file).num_rows)
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read: {error}") from error
    return sum(1 for _ in read_rows(file, columns))


def choose_indices(count: int, limit: int | None, seed: int) -> list[int]:
    """Which items are asked: all, or so many drawn at random, the same for every model; ascending."""
    if limit is None or limit >= count:
        return list(range(count))
    drawn: list[int] = np.random.default_rng(seed).choice(count, limit, replace=False).tolist()
    return sorted(drawn)


def question_digest(item: Item) -> str:
    """What was asked, in 16 hexadecimal digits: texts, media, tools, choices, references, details.

    Raises:
        DataError: a medium is not the content of a file.
    """
    messages = [[message.role, [_part_digest(part) for part in message.parts]] for message in item.messages]
    parts = [
        messages,
        list(map(dict, item.tools)),
        item.context,
        item.choices,
        item.right,
        item.references,
        dict(item.details),
    ]
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _part_digest(part: Part) -> str:
    """Text as it is; of a medium, which is the content of a file here, the SHA-256."""
    if isinstance(part, str):
        return part
    if not isinstance(part.source, bytes):
        raise DataError(
            f"an item has a medium for {part.modality} as {type(part.source).__name__}; give the content of its file, "
            "as `row.medium` does"
        )
    return f"{part.modality} {hashlib.sha256(part.source).hexdigest()}"
