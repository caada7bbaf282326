"""The account of a curation: how much went into each step and came out of it, why not all, and how long it took."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TextIO

from phi4.data.record import to_json
from phi4.files import new_file

# Of each reason, and of each task, so many documents are kept to be shown, and so many letters of each.
SAMPLES = 3
SAMPLE_LETTERS = 300


@dataclass
class StepAccount:
    """What became of documents in one step.

    Attributes:
        name: of the step.
        documents_in: how many came.
        documents_out: how many went on.
        bytes_in: text and media of those that came; of what no reader could make a document of, nothing.
        bytes_out: of those that went on.
        changed: how many went on with another text.
        reasons: how many were left out, by reason.
        samples: the first of each reason: id and beginning.
        notes: what else was seen, and how often.
        seconds: spent in the step by all tasks together.
    """

    name: str
    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    changed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the time that the block takes."""
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds += perf_counter() - started

    def add(self, other: "StepAccount") -> None:
        """Adds what another task found in the same step."""
        for name in ("documents_in", "documents_out", "bytes_in", "bytes_out", "changed", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)
        self.notes.update(other.notes)
        for reason, samples in other.samples.items():
            self.samples[reason] = [*self.samples.get(reason, []), *samples][:SAMPLES]


class Account:
    """The accounts of one task's steps, and the list of all documents that it left out.

    Attributes:
        steps: in their order.
    """

    def __init__(self, names: Iterable[str], removed: TextIO) -> None:
        """Begins at nothing.

        Args:
            names: of the steps.
            removed: takes a line of JSON for each document that is left out.
        """
        self.steps = [StepAccount(name) for name in names]
        self._removed = removed

    def receive(self, step: int, num_bytes: int) -> None:
        """A document comes, with so many bytes; it is kept or removed next."""
        account = self.steps[step]
        account.documents_in += 1
        account.bytes_in += num_bytes

    def keep(self, step: int, num_bytes: int, changed: bool = False) -> None:
        """A document goes on, with so many bytes."""
        account = self.steps[step]
        account.documents_out += 1
        account.bytes_out += num_bytes
        account.changed += changed

    def remove(self, step: int, document_id: str, reason: str, text: str, detail: str = "") -> None:
        """A document is left out; `detail` is what there is to say of it alone."""
        account = self.steps[step]
        account.reasons[reason] += 1
        samples = account.samples.setdefault(reason, [])
        if len(samples) < SAMPLES:
            shown = text[:SAMPLE_LETTERS] + ("…" if len(text) > SAMPLE_LETTERS else "")
            shown = f"{detail}\n{shown}" if detail else shown
            samples.append((document_id, shown.encode(errors="replace").decode()))
        line = to_json(
            {"id": document_id, "step": account.name, "reason": reason, **({"detail": detail} if detail else {})}
        )
        self._removed.write(line.encode(errors="replace").decode() + "\n")

    def save(self, path: Path) -> None:
        """Writes the accounts; the file appears when it is complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as partial:
            partial.write_text(json.dumps([vars(step) for step in self.steps]), encoding="utf-8")


def merged_accounts(paths: Iterable[Path]) -> list[StepAccount]:
    """Adds up the accounts of the same steps in several tasks, in the order of the tasks."""
    total: list[StepAccount] = []
    for path in paths:
        loaded = [_loaded(raw) for raw in json.loads(path.read_text(encoding="utf-8"))]
        if not total:
            total = [StepAccount(step.name) for step in loaded]
        for account, other in zip(total, loaded, strict=True):
            account.add(other)
    return total


def _loaded(raw: dict[str, object]) -> StepAccount:
    step = StepAccount(**raw)  # type: ignore[arg-type]
    step.reasons, step.notes = Counter(step.reasons), Counter(step.notes)
    step.samples = {reason: [(item[0], item[1]) for item in samples] for reason, samples in step.samples.items()}
    return step
