"""Which tasks moved from one evaluation to another, by how much, and whether chance would do that too."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi4.errors import DataError
from phi4.eval.answers import Answered, read_answers, statistics_of
from phi4.eval.resample import Difference, compare
from phi4.eval.results import MetricResult, Results, format_value, is_share, read_results
from phi4.files import make_folder
from phi4.svg_plots import Interval, intervals

TABLE_FILE = "comparison.md"
PLOT_FILE = "comparison.svg"

# Below this chance that exchanging the two models would move a task as much, it counts as moved.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class TaskComparison:
    """One metric of one task in two evaluations.

    Attributes:
        task: its name.
        metric: its name.
        records: how many both were asked.
        first: value of the first.
        second: value of the second.
        difference: second minus first, on the same records.
        different: answers that are not the same, letter by letter or bit by bit.
        verdict: "same" where no answer differs, "better" or "worse" where chance hardly explains it, else "unclear".
    """

    task: str
    metric: str
    records: int
    first: float
    second: float
    difference: Difference
    different: int
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two evaluations side by side.

    Attributes:
        first: title of the one that is compared with.
        second: title of the other.
        tasks: what both were asked.
        only_first: tasks of the first alone.
        only_second: tasks of the second alone.
    """

    first: str
    second: str
    tasks: tuple[TaskComparison, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The comparison as `phi4 compare --json` prints it."""
        return asdict(self)


def compare_evaluations(first: Path, second: Path) -> Comparison:
    """Compares two folders that `phi4 eval` wrote.

    Raises:
        DataError: one holds no evaluation, they have no task in common, or were asked different questions.
    """
    before, after = read_results(first), read_results(second)
    common = [name for name in before.tasks if name in after.tasks]
    if not common:
        raise DataError(
            f"{first} has the tasks {', '.join(before.tasks) or 'none'}, {second} {', '.join(after.tasks) or 'none'}: "
            "none is in both; evaluate both on the same"
        )
    seed = int(before.settings["seed"])
    tasks = tuple(row for name in common for row in _compare_task(name, before, first, second, seed))
    return Comparison(
        before.title,
        after.title,
        tasks,
        tuple(name for name in before.tasks if name not in after.tasks),
        tuple(name for name in after.tasks if name not in before.tasks),
    )


def _compare_task(name: str, before: Results, first: Path, second: Path, seed: int) -> list[TaskComparison]:
    answers, others = read_answers(first / f"{name}.jsonl"), read_answers(second / f"{name}.jsonl")
    if [one.question for one in answers] != [one.question for one in others]:
        raise DataError(
            f"{name}: {first} has {len(answers)} answers and {second} {len(others)}, to questions that are not the "
            "same; evaluate both on the same data with the same --limit, --seed and --shots"
        )
    return [_compare_metric(name, metric, answers, others, seed) for metric in before.tasks[name].metrics]


def _compare_metric(
    name: str, metric: MetricResult, answers: Sequence[Answered], others: Sequence[Answered], seed: int
) -> TaskComparison:
    statistics, others_statistics = statistics_of(answers, metric.name), statistics_of(others, metric.name)
    difference = compare(metric.total, statistics, others_statistics, seed)
    different = count_different(answers, others)
    return TaskComparison(
        task=name,
        metric=metric.name,
        records=len(answers),
        first=metric.estimate.value,
        second=metric.estimate.value + difference.value,
        difference=difference,
        different=different,
        verdict=_verdict(difference, metric.higher_is_better, different),
    )


def count_different(answers: Sequence[Answered], others: Sequence[Answered]) -> int:
    """How many answers to the same questions are not the same, letter by letter and bit by bit."""
    return sum(
        (one.texts, one.log_likelihoods) != (other.texts, other.log_likelihoods)
        for one, other in zip(answers, others, strict=True)
    )


def _verdict(difference: Difference, higher_is_better: bool, different: int) -> str:
    if not different:
        return "same"
    if difference.p_value >= SIGNIFICANCE:
        return "unclear"
    return "better" if (difference.value > 0) == higher_is_better else "worse"


def to_markdown(comparison: Comparison) -> str:
    """The comparison for people."""
    lines = [
        f"# {comparison.first} → {comparison.second}",
        "",
        "| task | metric | first | second | difference | p | differ | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in comparison.tasks:
        values = (row.first, row.second, row.difference.value, row.difference.low, row.difference.high)
        first, second, moved, low, high = (format_value(row.metric, value) for value in values)
        lines.append(
            f"| {row.task} | {row.metric} | {first} | {second} | {moved} ({low} to {high}) | "
            f"{row.difference.p_value:.3f} | {row.different} of {row.records} | {row.verdict} |"
        )
    for title, names in ((comparison.first, comparison.only_first), (comparison.second, comparison.only_second)):
        if names:
            lines += ["", f"Only {title}: {', '.join(names)}."]
    return "\n".join([*lines, ""])


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Writes `comparison.md` with a plot of the differences, `comparison.svg`."""
    make_folder(folder)
    (folder / PLOT_FILE).write_text(intervals(_plotted(comparison.tasks)), encoding="utf-8")
    text = f"{to_markdown(comparison)}\n![differences with 95 % intervals]({PLOT_FILE})\n"
    (folder / TABLE_FILE).write_text(text, encoding="utf-8")


def _plotted(rows: Sequence[TaskComparison]) -> list[Interval]:
    """Shares have one scale, everything else one of its own; 0 is in the middle."""
    reach = {row: max(abs(row.difference.low), abs(row.difference.high), abs(row.difference.value)) for row in rows}
    shares = max((reach[row] for row in rows if is_share(row.metric)), default=0.0)
    plotted = []
    for row in rows:
        difference, scale = row.difference, shares if is_share(row.metric) else reach[row]
        value, low, high = (
            format_value(row.metric, one) for one in (difference.value, difference.low, difference.high)
        )
        shown = f"{value} ({low} to {high}), {row.verdict}"
        label = f"{row.task}, {row.metric}"
        plotted.append(Interval(label, difference.value, difference.low, difference.high, shown, (-scale, scale)))
    return plotted
