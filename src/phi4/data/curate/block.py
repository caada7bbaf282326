"""The block that a datatrove executor runs for each task of a phase: read, pass the steps, keep, give account."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from phi4.data.curate.account import Account
from phi4.data.curate.curation import BatchFilter, Collection, DocumentStep, Edit, Filter, Reason
from phi4.data.curate.documents import edit_texts, num_bytes
from phi4.data.curate.duplicates import removed_places
from phi4.data.curate.plan import CurationPlan, RawFile, phases
from phi4.data.curate.read import Refused
from phi4.data.curate.store import BATCH_BYTES, store_name, stored, written
from phi4.data.curate.words import remember_words
from phi4.data.record import to_json
from phi4.errors import DataError, Phi4Error

READ = "read"
NO_LICENCE = "no licence"


class QuietBlock(PipelineStep):  # type: ignore[misc]
    """Keeps datatrove's running commentary off the terminal of a local run; errors are raised all the same."""

    type = "phi4"
    name = "quiet"

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self.quiet = quiet

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A worker receives the block before it logs anything.
        self.__dict__.update(state)
        if self.quiet:
            logger.disable("datatrove")

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Hands on what came, which is nothing for a block that begins a pipeline."""
        return data


class PhaseBlock(QuietBlock):
    """All steps of a phase for one task's documents, which are written and handed on."""

    name = "steps of a phase"

    def __init__(self, plan: CurationPlan, number: int, quiet: bool) -> None:
        """Begins nothing yet.

        Args:
            plan: of the curation.
            number: of the phase; they begin at 0.
            quiet: whether datatrove's log stays off the terminal.
        """
        super().__init__(quiet)
        self.plan = plan
        self.number = number

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields the documents that passed, once they are written."""
        remember_words()
        curation = self.plan.load()
        all_phases = phases(curation)
        steps = all_phases[self.number].steps
        before = all_phases[self.number - 1].duplicates if self.number else None
        folder = self.plan.phase(self.number)
        (folder / "removed").mkdir(parents=True, exist_ok=True)
        with (folder / "removed" / f"{rank:05}.jsonl").open("w", encoding="utf-8", newline="\n") as removed:
            account = Account([before.name if before else READ, *(step.name for step in steps)], removed)
            if before is None:
                collections = {collection.name: collection for collection in curation.collections}
                documents = read_files(self.plan.task_files(rank), collections, Path(self.plan.raw), account)
            else:
                documents = read_rest(self.plan.phase(self.number - 1), rank, account)
            passing = pass_steps(documents, steps, account)
            yield from written(folder / "documents" / store_name(rank), passing)
            account.save(folder / "accounts" / f"{rank:05}.json")


def read_files(
    files: Iterable[RawFile], collections: dict[str, Collection], raw: Path, account: Account
) -> Iterator[Document]:
    """Reads raw files; each document gets its provenance, and an id that says where it was found."""
    step = account.steps[0]
    for file in files:
        collection = collections[file.collection]
        path = f"{file.collection}/{file.path}".encode(errors="replace").decode()
        reading = collection.reader.read(raw / file.path, file.part)
        while True:
            with step.timed():
                read = next(reading, None)
            if read is None:
                break
            if isinstance(read, Refused):
                account.receive(0, 0)
                account.remove(0, f"{path}#{read.place}", read.reason, read.sample)
                continue
            size = num_bytes(read)
            account.receive(0, size)
            read.id = f"{path}#{read.id}"
            if "encoding" in read.metadata:
                step.notes[f"read as {read.metadata.pop('encoding')}"] += 1
            given = {
                "source": collection.source or collection.name,
                "licence": collection.licence,
                "split": collection.split,
                "task": collection.task,
            }
            read.metadata = {**given, **read.metadata, "collection": collection.name}
            if reason := _unusable(read):
                account.remove(0, read.id, reason, read.text)
                continue
            account.keep(0, size)
            yield read


def read_rest(folder: Path, task: int, account: Account) -> Iterator[Document]:
    """Reads what a phase left, without the duplicates that were found in it."""
    places = removed_places(folder, task)
    for place, document in enumerate(stored(folder / "documents" / store_name(task))):
        size = num_bytes(document)
        account.receive(0, size)
        if place in places:
            account.remove(0, document.id, "another one is kept", document.text)
        else:
            account.keep(0, size)
            yield document


def pass_steps(documents: Iterator[Document], steps: tuple[DocumentStep, ...], account: Account) -> Iterator[Document]:
    """Yields the documents that every step keeps."""
    for number, step in enumerate(steps, start=1):
        documents = _passing(documents, step, number, account)
    return documents


def _passing(documents: Iterator[Document], step: DocumentStep, number: int, account: Account) -> Iterator[Document]:
    """Yields the documents that a step keeps, in their order."""
    for batch in _batches(documents, step.size if isinstance(step, BatchFilter) else 1):
        sizes = [num_bytes(document) for document in batch]
        texts = [document.text for document in batch]
        with account.steps[number].timed():
            reasons = _reasons(step, batch)
        for document, size, before, reason in zip(batch, sizes, texts, reasons, strict=True):
            account.receive(number, size)
            if reason is None and not document.text.strip() and not document.media:
                reason = "nothing is left"
            if isinstance(reason, Reason):
                account.remove(number, document.id, reason.text, before, reason.detail)
            elif reason is not None:
                account.remove(number, document.id, reason, before)
            else:
                changed = document.text != before
                account.keep(number, num_bytes(document) if changed else size, changed)
                yield document


def _reasons(step: DocumentStep, batch: list[Document]) -> Sequence[str | Reason | None]:
    try:
        match step:
            case BatchFilter():
                return step.reasons(batch)
            case Filter():
                return [step.reason(document) for document in batch]
            case Edit():
                for document in batch:
                    edit_texts(document, step.text)
                return [None] * len(batch)
    except Phi4Error:
        raise
    except Exception as error:  # whatever a step of a recipe's own may raise
        named = batch[0].id if len(batch) == 1 else f"{batch[0].id} to {batch[-1].id}"
        raise DataError(f"the step {step.name!r} failed on {named}: {type(error).__name__}: {error}") from error


def _batches(documents: Iterable[Document], max_documents: int) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += num_bytes(document)
        if len(batch) == max_documents or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _unusable(document: Document) -> str | None:
    """Why a document cannot go on, whatever the steps are."""
    if not document.metadata["licence"]:
        return NO_LICENCE
    if not document.text.strip() and not document.media:
        return "no text"
    try:
        (document.text + to_json(document.metadata)).encode()
    except UnicodeEncodeError:
        return "text that is no valid Unicode"
    return None
