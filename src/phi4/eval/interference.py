"""Does a modality cost the model anything? The base with no pack, each pack, and all, on the same tasks."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from phi4.assistant import Assistant
from phi4.errors import InputError
from phi4.eval.answers import read_answers
from phi4.eval.comparison import count_different
from phi4.eval.items import Items
from phi4.eval.provenance import describe_environment, describe_model
from phi4.eval.resample import Estimate
from phi4.eval.results import Results, format_value, plot_row
from phi4.eval.run import Progress, Settings, evaluate
from phi4.eval.task import Task
from phi4.svg_plots import Interval, intervals

REPORT_FILE = "interference.md"
PLOT_FILE = "interference.svg"

# Loads the model with some of its packs.
Load = Callable[[Sequence[Path]], Assistant]


@dataclass(frozen=True)
class TaskInterference:
    """One task under all sets of packs.

    Attributes:
        task: its name.
        metric: its first metric.
        records: how many were asked.
        modalities: of its media; for a text task, nothing may move at all.
        estimates: values and intervals by set of packs; sets without the task's modalities are missing.
        different: answers that differ from those of the smallest set that can do the task, by set.
    """

    task: str
    metric: str
    records: int
    modalities: frozenset[str]
    estimates: dict[str, Estimate]
    different: dict[str, int]

    @property
    def is_identical(self) -> bool:
        """Whether every set gave the same answers."""
        return not any(self.different.values())


def measure_interference(
    name: str,
    load: Load,
    packs: Sequence[Path],
    tasks: Sequence[tuple[Task, Items]],
    out: Path,
    settings: Settings,
    progress: Progress | None = None,
) -> list[TaskInterference]:
    """Evaluates the base with every set of packs, each in a folder of its own, and writes `interference.md`.

    Args:
        name: the model's.
        load: loads it with some of the packs; one such model is in memory at a time.
        packs: that add modalities.
        tasks: each with its items; a set of packs is asked those that it has the modalities for.
        out: gets a folder for each set, `base`, `base+vision` and so on.
        settings: as for `evaluate`.
        progress: as for `evaluate`, counted for each set.

    Raises:
        InputError: there is no pack, or a task needs a modality that no set has.
    """
    if not packs:
        raise InputError("there is no pack whose interference could be measured; name packs with --pack")
    sets = list(chain.from_iterable(combinations(packs, count) for count in range(len(packs) + 1)))
    folders = {"+".join(["base", *(pack.stem for pack in chosen)]): chosen for chosen in sets}
    if len(folders) < len(sets):
        raise InputError(f"two packs have the same file name in {', '.join(map(str, packs))}; rename one")
    found: dict[str, Results] = {}
    for title, chosen in folders.items():
        assistant = load(chosen)
        usable = [task for task in tasks if task[0].modalities <= assistant.loaded.config.adapters.keys()]
        if chosen == tuple(packs) and len(usable) < len(tasks):
            lacking = [task.name for task, _ in tasks if task.name not in {one.name for one, _ in usable}]
            raise InputError(f"no pack has the modalities of {', '.join(lacking)}; leave the task out, or add a pack")
        found[title] = evaluate(
            assistant,
            usable,
            out / title,
            settings,
            model=describe_model(name, chosen, assistant),
            environment=describe_environment(assistant.loaded.model.device),
            progress=progress,
        )
        assistant.engine.close()
    report = [_gather(task, found, out) for task, _ in tasks]
    text = f"{to_markdown(name, report, list(folders))}\n![values with 95 % intervals]({PLOT_FILE})\n"
    (out / REPORT_FILE).write_text(text, encoding="utf-8")
    (out / PLOT_FILE).write_text(intervals(_plotted(report)), encoding="utf-8")
    return report


def _plotted(report: Sequence[TaskInterference]) -> list[Interval]:
    return [
        plot_row(f"{row.task}, {title}", row.metric, estimate)
        for row in report
        for title, estimate in row.estimates.items()
    ]


def _gather(task: Task, found: dict[str, Results], out: Path) -> TaskInterference:
    results = {title: one.tasks[task.name] for title, one in found.items() if task.name in one.tasks}
    answers = {title: read_answers(out / title / f"{task.name}.jsonl") for title in results}
    smallest = answers[next(iter(results))]
    return TaskInterference(
        task=task.name,
        metric=task.metrics[0].name,
        records=len(smallest),
        modalities=task.modalities,
        estimates={title: result.metrics[0].estimate for title, result in results.items()},
        different={title: count_different(smallest, others) for title, others in answers.items()},
    )


def to_markdown(name: str, report: Sequence[TaskInterference], titles: Sequence[str]) -> str:
    """The report for people: values, and behind them how many answers differ from the first set's."""
    lines = [
        f"# {name}: what its packs leave untouched",
        "",
        f"| task | records | metric | {' | '.join(titles)} | answers |",
        "|---|---|---|" + "---|" * (len(titles) + 1),
    ]
    for row in report:
        cells = [
            format_value(row.metric, row.estimates[title].value) if title in row.estimates else "" for title in titles
        ]
        verdict = "identical" if row.is_identical else f"{max(row.different.values())} differ"
        if len(row.estimates) == 1:
            verdict = "nothing to compare"
        lines.append(f"| {row.task} | {row.records} | {row.metric} | {' | '.join(cells)} | {verdict} |")
    return "\n".join([*lines, ""])


def to_json(report: Sequence[TaskInterference]) -> dict[str, Any]:
    """The report as `phi4 eval --interference --json` prints it."""
    return {
        row.task: {
            "metric": row.metric,
            "records": row.records,
            "values": {title: asdict(estimate) for title, estimate in row.estimates.items()},
            "different": row.different,
        }
        for row in report
    }
