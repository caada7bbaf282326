"""The held-out records of the project's own shards as tasks, named after what the records teach."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from phi4.engine.sampling import Sampling
from phi4.eval.language_metrics import CER, WER
from phi4.eval.metrics import exact_match
from phi4.eval.task import Generate, Item, Task
from phi4.score import HeldOut, read_held_out

MAX_TOKENS = 160


@dataclass(frozen=True)
class HeldOutItems:
    """The test records of one task of a data set."""

    held_out: HeldOut

    def __len__(self) -> int:
        return len(self.held_out.records)

    def select(self, indices: Sequence[int]) -> Iterator[Item]:
        """Reads some of them."""
        for index in indices:
            record = self.held_out.records[index]
            yield Item(record.id, record.messages[:-1], references=(record.answer,))

    def describe(self) -> dict[str, Any]:
        """The data set's name, and the SHA-256 of its manifest, which holds those of all shards."""
        return {"dataset": self.held_out.dataset, "manifest": self.held_out.records.records.digest}


def read_held_out_tasks(data: Path) -> list[tuple[Task, HeldOutItems]]:
    """One task for each kind of test records in a folder with one folder of shards per data set.

    Raises:
        DataError: there are none.
    """
    return [(_task(held_out), HeldOutItems(held_out)) for held_out in read_held_out(data)]


def _task(held_out: HeldOut) -> Task:
    return Task(
        name=quote(f"{held_out.dataset}.{held_out.task}.{held_out.media}", safe=" +"),
        ask=Generate(Sampling(max_tokens=MAX_TOKENS)),
        metrics=(exact_match(str.strip), WER, CER),
        modalities=held_out.modalities,
    )
