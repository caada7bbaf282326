"""The plan of one curation: which raw files each task reads, where phases keep their work, when it may be resumed."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import asdict, dataclass
from pathlib import Path

from phi4.data.curate.curation import BatchFilter, Collection, Curation, DocumentStep, Duplicates, Filter, load_curation
from phi4.data.curate.read import FilePart
from phi4.errors import ConfigError, DataError
from phi4.files import file_digest
from phi4.recipe_file import imported_files

# Files are shared among at most so many tasks, whatever the number of workers: the output follows from the tasks.
MAX_TASKS = 256


@dataclass(frozen=True)
class RawFile:
    """One raw file, or a part of it.

    Attributes:
        collection: name of the collection that it belongs to.
        path: below the raw folder, with slashes.
        bytes: size of the file.
        part: what is read of it; None for all.
    """

    collection: str
    path: str
    bytes: int
    part: FilePart | None = None


@dataclass(frozen=True)
class CurationPhase:
    """Steps that look at one document at a time, and the comparison of all documents that follows them.

    Attributes:
        steps: in their order.
        duplicates: what is compared behind them; None in the last phase.
    """

    steps: tuple[DocumentStep, ...]
    duplicates: Duplicates | None


@dataclass(frozen=True)
class CurationPlan:
    """What a task has to know, wherever it runs; the recipe itself is loaded there.

    Attributes:
        reference: of the recipe, with an absolute path.
        folder: that the recipe's imports and paths start from.
        raw: the raw folder.
        work: where phases keep their work.
        files: all raw files and parts of them, in their order.
    """

    reference: str
    folder: str
    raw: str
    work: str
    files: tuple[RawFile, ...]

    @property
    def num_tasks(self) -> int:
        """Into how many parts the work is cut."""
        return min(len(self.files), MAX_TASKS)

    def load(self) -> Curation:
        """Loads the recipe anew, so that no task sees what a step kept from another."""
        with chdir(self.folder):
            return load_curation(self.reference)

    def task_files(self, task: int) -> tuple[RawFile, ...]:
        """The raw files of one task; tasks begin at 0."""
        return self.files[task :: self.num_tasks]

    def phase(self, number: int) -> Path:
        """The folder of one phase; phases begin at 0."""
        return Path(self.work) / f"phase-{number:02}"


def phases(curation: Curation) -> list[CurationPhase]:
    """Cuts the steps behind each that compares all documents."""
    found: list[CurationPhase] = []
    steps: list[DocumentStep] = []
    for step in curation.steps:
        if isinstance(step, DocumentStep):
            steps.append(step)
        else:
            found.append(CurationPhase(tuple(steps), step))
            steps = []
    return [*found, CurationPhase(tuple(steps), None)]


def find_files(collections: Sequence[Collection], raw: Path) -> tuple[RawFile, ...]:
    """Lists the raw files of all collections by name, long ones in parts.

    Raises:
        DataError: a collection has no files, or a file belongs to two collections.
    """
    found: list[RawFile] = []
    owner: dict[Path, str] = {}
    for collection in collections:
        paths = sorted(path for path in raw.glob(collection.files) if path.is_file())
        if not paths:
            raise DataError(f"the collection {collection.name!r} has no files: {raw / collection.files} matches none")
        for path in paths:
            if path in owner:
                raise DataError(f"{path} belongs to two collections, {owner[path]!r} and {collection.name!r}")
            owner[path] = collection.name
            name, size = path.relative_to(raw).as_posix(), path.stat().st_size
            parts = collection.reader.parts(path) or (None,)
            found += [RawFile(collection.name, name, size, part) for part in parts]
    return tuple(found)


def fingerprint(plan: CurationPlan, curation: Curation, version: str) -> dict[str, str]:
    """What a curation is made of, by name; one that was begun goes on only with the same.

    Raises:
        ConfigError: a file that a step reads is missing.
    """
    recipe, _, name = plan.reference.rpartition(":")
    listing = [{**asdict(file), "modified": (Path(plan.raw) / file.path).stat().st_mtime_ns} for file in plan.files]
    parts = {
        "the version": version,
        "the function": name,
        "the recipe": file_digest(Path(recipe)),
        "the raw files": hashlib.sha256(json.dumps(listing).encode()).hexdigest(),
    }
    folder = Path(plan.folder)
    read = [folder / path for step in curation.steps if isinstance(step, Filter | BatchFilter) for path in step.files]
    for path in [*imported_files(Path(recipe), folder), *read]:
        if not path.is_file():
            raise ConfigError(f"a step of {plan.reference} reads {path}, which is no file")
        parts[os.path.relpath(path, folder)] = file_digest(path)
    return parts
