"""The answers to a task on disk: a line for each item, written as it comes, so that a run can be taken up again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from phi4.errors import DataError


@dataclass(frozen=True)
class Answered:
    """What was written about one item.

    Attributes:
        id: the item's.
        question: digest of what was asked (`items.question_digest`).
        texts: the model's answers.
        log_likelihoods: those of its choices.
        statistics: by metric.
    """

    id: str
    question: str
    texts: tuple[str, ...]
    log_likelihoods: tuple[float, ...]
    statistics: Mapping[str, tuple[float, ...]] = field(hash=False)

    def to_json(self) -> dict[str, Any]:
        """The line of the file."""
        return {
            "id": self.id,
            "question": self.question,
            "texts": list(self.texts),
            "log_likelihoods": list(self.log_likelihoods),
            "statistics": {name: list(values) for name, values in self.statistics.items()},
        }


def read_answers(path: Path) -> list[Answered]:
    """Reads what is there; a last line that was cut off does not count.

    Raises:
        DataError: another line is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [_read_line(line, path, number) for number, line in enumerate(lines[:-1], start=1)]


def _read_line(line: bytes, path: Path, number: int) -> Answered:
    try:
        raw = json.loads(line)
        return Answered(
            raw["id"],
            raw["question"],
            tuple(raw["texts"]),
            tuple(raw["log_likelihoods"]),
            {name: tuple(values) for name, values in raw["statistics"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}, line {number} is no answer: {error}; remove the file to begin again") from error


def statistics_of(answers: Sequence[Answered], metric: str) -> npt.NDArray[np.float64]:
    """What each record added to a metric, [records, statistics].

    Raises:
        DataError: an answer has none, or no numbers.
    """
    try:
        return np.array([answer.statistics[metric] for answer in answers], dtype=np.float64)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"the answers on disk have no numbers for {metric}: {error}; evaluate again") from error


class AnswerFile:
    """Adds answers to a file, from where it was left.

    Attributes:
        answers: those in the file, in the order of the items.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file and cuts off what was written only half."""
        self.answers = read_answers(path)
        content = path.read_bytes() if path.exists() else b""
        self._file = path.open("ab")
        self._file.truncate(content.rfind(b"\n") + 1)

    def add(self, answer: Answered) -> None:
        """Writes one answer; it is on disk when this returns."""
        self._file.write(json.dumps(answer.to_json(), ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        self.answers.append(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
