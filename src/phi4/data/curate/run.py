"""Runs a curation: phase by phase on an executor, then mixture, shards and report."""

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import xxhash
from datatrove.data import Document

from phi4.data.curate.account import Account, merged_accounts
from phi4.data.curate.block import PhaseBlock, QuietBlock
from phi4.data.curate.curation import Curation
from phi4.data.curate.documents import document_record, num_bytes
from phi4.data.curate.duplicates import comparisons, signature_blocks
from phi4.data.curate.executors import ExecutorName, run_tasks
from phi4.data.curate.mixture import Taken, choose, token_limits
from phi4.data.curate.plan import CurationPhase, CurationPlan, find_files, fingerprint, phases
from phi4.data.curate.report import Report, write_report
from phi4.data.curate.store import store_name, stored
from phi4.data.manifest import read_manifest
from phi4.data.record import Record
from phi4.data.shards import write_shards
from phi4.errors import ConfigError, DataError
from phi4.files import new_file

RECIPE_FILE = "recipe.json"
REMOVED_FILE = "removed.jsonl.gz"
WORK_FOLDER = "work"
# Its name while it is deleted.
FINISHED_FOLDER = ".finished"
MIXTURE = "mixture and budget"

# Told what is being done.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Curated:
    """Where a curation put its results.

    Attributes:
        shards: the data set.
        report: in Markdown; the same in HTML is beside it.
    """

    shards: Path
    report: Path


def curate(
    reference: str,
    raw: Path,
    out: Path,
    workers: int,
    executor: ExecutorName,
    version: str,
    tell: Tell,
) -> Curated:
    """Turns raw files into a folder of shards and a report. What was done before an interruption is not done again.

    The shards' bytes depend on recipe and raw files alone.

    Args:
        reference: of the recipe, such as "recipes/curation/text.py:english".
        raw: folder of the raw files.
        out: gets the shards in a folder with the name of the recipe's function, the report, and the list of all that
            was left out.
        workers: tasks at once.
        executor: what runs them.
        version: of the program.
        tell: hears what is being done.

    Raises:
        ConfigError: the recipe cannot be loaded, `out` lies in `raw`, or another curation was begun in it.
        DataError: raw files are missing, a step failed, or nothing is left.
    """
    path, _, name = reference.partition(":")
    out, raw = out.resolve(), raw.resolve()
    if out.is_relative_to(raw):
        raise ConfigError(f"{out} lies in the folder of the raw files, {raw}, whose files are read; name one outside")
    work, finished = out / WORK_FOLDER, out / FINISHED_FOLDER
    plan = CurationPlan(f"{Path(path).resolve()}:{name}", str(Path.cwd()), str(raw), str(work), ())
    curation = plan.load()
    plan = replace(plan, files=find_files(curation.collections, raw))
    result = Curated(out / name, out / "report.md")
    _begin(plan, curation, out, version)
    shutil.rmtree(finished, ignore_errors=True)
    if result.report.is_file() and not work.exists():
        tell(f"{result.shards} is complete already")
        return result
    started = perf_counter()
    parts = phases(curation)
    for number, phase in enumerate(parts):
        tell(f"phase {number + 1} of {len(parts)}: {_describe(phase, number)}")
        run_phase(plan, number, phase, workers, executor)
    tell("mixture, shards, report")
    _finish(plan, curation, len(parts), out, result, started)
    # At once: whoever is stopped while much is deleted must not go on with half of it.
    shutil.rmtree(work.rename(finished))
    return result


def run_phase(plan: CurationPlan, number: int, phase: CurationPhase, workers: int, executor: ExecutorName) -> None:
    """Runs the tasks of a phase and compares what they left."""
    folder = plan.phase(number)
    quiet = executor == "local"
    block = PhaseBlock(plan, number, quiet)
    after = signature_blocks(phase.duplicates, folder) if phase.duplicates else []
    run_tasks(executor, [block, *after], plan.num_tasks, workers, folder / "logs")
    for place, (comparison, tasks) in enumerate(comparisons(phase.duplicates, folder) if phase.duplicates else []):
        run_tasks(executor, [QuietBlock(quiet), comparison], tasks, workers, folder / f"comparison-{place}")


def _begin(plan: CurationPlan, curation: Curation, out: Path, version: str) -> None:
    """Marks the folder as this curation's, or finds that it is."""
    path, made_of = out / RECIPE_FILE, fingerprint(plan, curation, version)
    if path.is_file():
        begun = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in made_of.keys() | begun.keys() if made_of.get(name) != begun.get(name))
        if changed:
            raise ConfigError(
                f"{out} belongs to another curation: {', '.join(changed)} changed since it was begun ({path}). Name a "
                "new folder, or delete this one"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} exists and is not empty; name a new folder or empty it first")
    out.mkdir(parents=True, exist_ok=True)
    with new_file(path) as partial:
        partial.write_text(json.dumps(made_of, indent=2), encoding="utf-8")


def _finish(
    plan: CurationPlan, curation: Curation, num_phases: int, out: Path, result: Curated, started: float
) -> None:
    last = plan.phase(num_phases - 1)
    removed = Path(plan.work) / "removed.jsonl"
    with removed.open("w", encoding="utf-8", newline="\n") as file:
        account = Account([MIXTURE], file)
        taken, chosen = _choose(curation, _documents(plan, last))
        error = None
        try:
            with account.steps[0].timed():
                # An interrupted run may have left them, without an account of them.
                shutil.rmtree(result.shards, ignore_errors=True)
                write_shards(_records(_documents(plan, last), chosen, account), result.shards)
        except DataError as raised:
            error = raised
    steps = [
        step
        for number in range(num_phases)
        for step in merged_accounts(sorted((plan.phase(number) / "accounts").glob("*.json")))
    ]
    _list_removed(plan, num_phases, removed, out / REMOVED_FILE)
    sizes = {file.path: file.bytes for file in plan.files}
    report = Report(
        name=result.shards.name,
        steps=tuple(steps + account.steps),
        taken=taken,
        files=len(sizes),
        file_bytes=sum(sizes.values()),
        seconds=perf_counter() - started,
        licences={} if error is not None else _licences(result.shards),
    )
    write_report(report, result.report)
    if error is not None:
        raise DataError(f"{error}. What became of the documents stands in {result.report}") from error


def _documents(plan: CurationPlan, folder: Path) -> Iterator[Document]:
    for task in range(plan.num_tasks):
        yield from stored(folder / "documents" / store_name(task))


def _choose(curation: Curation, documents: Iterator[Document]) -> tuple[tuple[Taken, ...], dict[str, np.ndarray]]:
    """Which documents of each collection are taken, in the order in which they come."""
    orders: dict[str, list[int]] = {item.name: [] for item in curation.collections}
    tokens: dict[str, list[int]] = {item.name: [] for item in curation.collections}
    for document in documents:
        name = document.metadata["collection"]
        orders[name].append(xxhash.xxh64_intdigest(document.id.encode()))
        tokens[name].append(curation.num_tokens(document.text))
    limits = token_limits({name: sum(counts) for name, counts in tokens.items()}, curation.mixture, curation.budget)
    total = sum(curation.mixture.values())
    chosen, taken = {}, []
    for name, counts in tokens.items():
        there = np.array(counts, dtype=np.int64)
        chosen[name] = choose(np.array(orders[name], dtype=np.uint64), there, limits[name])
        taken.append(
            Taken(
                collection=name,
                share=curation.mixture[name] / total if curation.mixture else None,
                tokens_there=int(there.sum()),
                tokens_taken=int(there[chosen[name]].sum()),
                documents_there=len(there),
                documents_taken=int(chosen[name].sum()),
            )
        )
    return tuple(taken), chosen


def _records(documents: Iterator[Document], chosen: dict[str, np.ndarray], account: Account) -> Iterator[Record]:
    """The chosen documents as records."""
    places = dict.fromkeys(chosen, 0)
    for document in documents:
        name = document.metadata["collection"]
        size = num_bytes(document)
        account.receive(0, size)
        place, places[name] = places[name], places[name] + 1
        if not chosen[name][place]:
            account.remove(0, document.id, f"beyond what is taken of {name}", document.text)
            continue
        try:
            record = document_record(document)
        except DataError as error:
            account.remove(0, document.id, "no record can be made of it", str(error))
            continue
        account.keep(0, size)
        yield record


def _licences(shards: Path) -> dict[str, int]:
    """How many records there are of each licence."""
    counts: Counter[str] = Counter()
    for source in read_manifest(shards)[0].sources:
        counts[source.licence] += source.records
    return dict(counts)


def _list_removed(plan: CurationPlan, num_phases: int, last: Path, destination: Path) -> None:
    """Puts the lists of all tasks into one file, whose bytes depend on nothing else."""
    lists = [path for number in range(num_phases) for path in sorted((plan.phase(number) / "removed").glob("*.jsonl"))]
    with destination.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        for path in [*lists, last]:
            with path.open("rb") as part:
                shutil.copyfileobj(part, packed)


def _describe(phase: CurationPhase, number: int) -> str:
    names = [*([] if number else ["read"]), *(step.name for step in phase.steps)]
    return ", ".join([*names, *([phase.duplicates.name] if phase.duplicates else [])]) or "what is left"
