"""Evaluates a model on tasks: asks, writes down, and goes on where it was left."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from phi4.assistant import Assistant
from phi4.errors import DataError, InputError
from phi4.eval.answers import Answered, AnswerFile, statistics_of
from phi4.eval.ask import ITEMS_AT_ONCE, ask_items
from phi4.eval.items import UNREADABLE, Items, choose_indices, question_digest
from phi4.eval.resample import Estimate, estimate
from phi4.eval.results import (
    RESULTS_FILE,
    MetricResult,
    Results,
    TaskResult,
    ask_to_json,
    read_results,
    write_results,
)
from phi4.eval.task import Item, Metric, Reply, Task
from phi4.files import make_folder

# Called with the number of items answered so far and in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """What is the same for all tasks of an evaluation.

    Attributes:
        limit: items of each task, drawn at random; None takes all.
        seed: of the draw and of the resamples.
    """

    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(f"the limit must be at least 1 item, not {self.limit}")
        if self.seed < 0:
            raise InputError(f"the seed must be at least 0, not {self.seed}")


def evaluate(
    assistant: Assistant,
    tasks: Sequence[tuple[Task, Items]],
    out: Path,
    settings: Settings,
    *,
    model: dict[str, Any],
    environment: dict[str, Any],
    progress: Progress | None = None,
) -> Results:
    """Asks a model the items of every task and writes answers and results into a folder.

    What was answered there before by the same model under the same settings is not asked again; results of other
    tasks that are in the folder stay.

    Args:
        assistant: the model.
        tasks: each with its items.
        out: gets `TASK.jsonl` with the answers, `results.json` and `results.md`.
        settings: how many items, and the seed.
        model: `provenance.describe_model`.
        environment: `provenance.describe_environment`.
        progress: told how many items are answered.

    Raises:
        DataError: an item cannot be used with this model, or the folder holds an evaluation of another one.
        InputError: a task needs a modality that the model lacks, or a metric a library that is not installed, or the
            folder is none.
    """
    for task, _ in tasks:
        lacking = sorted(task.modalities - assistant.loaded.config.adapters.keys())
        if lacking:
            raise InputError(f"{task.name} needs {' and '.join(lacking)}, which the model lacks; add a pack for it")
        for metric in task.metrics:
            if metric.check is not None:
                metric.check()
    make_folder(out)
    results = _begin(out, Results(model, asdict(settings), environment, {}))
    for task, _ in tasks:
        before = results.tasks.get(task.name)
        if before is not None and before.ask and before.ask != ask_to_json(task.ask):
            raise DataError(
                f"{out} has answers to {task.name} that were asked for with {before.ask}, not {ask_to_json(task.ask)}: "
                "name another folder"
            )
    chosen = [choose_indices(len(items), settings.limit, settings.seed) for _, items in tasks]
    num_total, num_done = sum(map(len, chosen)), 0
    for (task, items), indices in zip(tasks, chosen, strict=True):
        with AnswerFile(out / f"{task.name}.jsonl") as file:
            if len(file.answers) > len(indices):
                raise DataError(
                    f"{out} has {len(file.answers)} answers to {task.name}, more than there are items; its data "
                    "changed: name another folder"
                )
            for _ in _answer(assistant, task, items.select(indices), file):
                num_done += 1
                if progress is not None:
                    progress(num_done, num_total)
        result = _result(task, items, len(indices), file.answers, settings.seed)
        results = results.with_task(result)
        write_results(results, out)
    return results


def _begin(out: Path, fresh: Results) -> Results:
    """The results that are in the folder already, if they are this model's, else none; what they are of is noted."""
    if (out / RESULTS_FILE).exists():
        found = read_results(out)
        if (found.model, found.settings) != (fresh.model, fresh.settings):
            different = [
                f"{name} {before.get(name)!r}, not {now[name]!r}"
                for before, now in ((found.model, fresh.model), (found.settings, fresh.settings))
                for name in now
                if before.get(name) != now[name]
            ]
            raise DataError(f"{out} holds another evaluation, with {'; '.join(different)}: name another folder")
        fresh = Results(fresh.model, fresh.settings, fresh.environment, found.tasks)
    write_results(fresh, out)
    return fresh


def _answer(assistant: Assistant, task: Task, items: Iterator[Item], file: AnswerFile) -> Iterator[Answered]:
    """Yields the answer to every item; the ones that are in the file are compared with what would be asked."""
    for answered, item in zip(list(file.answers), items, strict=False):
        if (answered.id, answered.question) != (item.id, question_digest(item)):
            raise DataError(
                f"the answer to {answered.id!r} in the folder was given to another question than {item.id!r} of "
                f"{task.name} is now; name another folder"
            )
        yield answered
    while group := list(islice(items, ITEMS_AT_ONCE)):
        for item, reply in zip(group, ask_items(assistant, task.ask, group), strict=True):
            statistics = {metric.name: _judge(metric, item, reply) for metric in task.metrics}
            answered = Answered(item.id, question_digest(item), reply.texts, reply.log_likelihoods, statistics)
            file.add(answered)
            yield answered


def _judge(metric: Metric, item: Item, reply: Reply) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in metric.statistics(item, reply))
    except UNREADABLE as error:
        problem = f"item {item.id!r} has right answers of another kind than {metric.name} compares: {error!r}"
        raise DataError(problem) from error


def _result(task: Task, items: Items, num_items: int, answers: Sequence[Answered], seed: int) -> TaskResult:
    metrics = []
    for metric in task.metrics:
        estimated: Estimate = estimate(metric.total, statistics_of(answers, metric.name), seed)
        metrics.append(MetricResult(metric.name, metric.total, metric.higher_is_better, estimated))
    return TaskResult(
        name=task.name,
        records=num_items,
        all_records=len(items),
        metrics=tuple(metrics),
        modalities=sorted(task.modalities),
        data=items.describe(),
        shots=task.shots,
        ask=ask_to_json(task.ask),
    )
