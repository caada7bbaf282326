"""The results of an evaluation, as JSON and as Markdown."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from phi4.errors import ConfigError, DataError
from phi4.eval.resample import Estimate
from phi4.eval.task import Total
from phi4.json_file import read_json

RESULTS_FILE = "results.json"
TABLE_FILE = "results.md"


@dataclass(frozen=True)
class MetricResult:
    """One metric of one task.

    Attributes:
        name: the metric's.
        total: how its statistics become its value.
        higher_is_better: which way is good.
        estimate: value and interval.
    """

    name: str
    total: Total
    higher_is_better: bool
    estimate: Estimate


@dataclass(frozen=True)
class TaskResult:
    """How a model did on a task.

    Attributes:
        name: the task's.
        records: how many were asked.
        all_records: how many there are.
        metrics: the first one is the result.
        modalities: of the task's media.
        data: files and digests.
    """

    name: str
    records: int
    all_records: int
    metrics: tuple[MetricResult, ...]
    modalities: list[str]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """What an evaluation found, and what is needed to repeat it.

    Attributes:
        model: `provenance.describe_model`.
        settings: `run.Settings`.
        environment: `provenance.describe_environment`, of the last command that added to it.
        tasks: by name.
    """

    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    tasks: Mapping[str, TaskResult]

    def with_task(self, result: TaskResult) -> "Results":
        """The same with the result of one more task, or another one of the same name."""
        return replace(self, tasks={**self.tasks, result.name: result})

    @property
    def title(self) -> str:
        """The model and its packs, in a few words."""
        packs = " + ".join(name.removesuffix(".safetensors") for name in self.model["packs"])
        return f"{self.model['name']} + {packs}" if packs else str(self.model["name"])


def write_results(results: Results, folder: Path) -> None:
    """Writes `results.json` and `results.md`."""
    partial = folder / f".{RESULTS_FILE}.partial"
    partial.write_text(json.dumps(asdict(results), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / RESULTS_FILE)
    (folder / TABLE_FILE).write_text(to_markdown(results), encoding="utf-8")


def read_results(folder: Path) -> Results:
    """Reads what `phi4 eval` wrote.

    Raises:
        DataError: the folder holds no results, or they are damaged.
    """
    path = folder / RESULTS_FILE
    try:
        raw = read_json(path)
        tasks = {name: _read_task(task) for name, task in raw["tasks"].items()}
        return Results(dict(raw["model"]), dict(raw["settings"]), dict(raw["environment"]), tasks)
    except ConfigError as error:
        raise DataError(f"{folder} holds no evaluation: {error}. `phi4 eval --out {folder}` makes one") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error!r}); evaluate again into another folder") from error


def _read_task(raw: Mapping[str, Any]) -> TaskResult:
    metrics = tuple(MetricResult(**{**metric, "estimate": Estimate(**metric["estimate"])}) for metric in raw["metrics"])
    return TaskResult(**{**raw, "metrics": metrics})


def format_value(metric: str, value: float) -> str:
    """A value as people write it: shares in per cent, everything else as it is."""
    if metric in ("BLEU", "chrF", "word perplexity"):
        return f"{value:,.1f}"
    return f"{value:.3f}" if metric == "bits per byte" else f"{100 * value:.1f} %"


def to_markdown(results: Results) -> str:
    """The results for people."""
    lines = [
        f"# {results.title}",
        "",
        "| task | records | metric | value | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for task in results.tasks.values():
        asked = str(task.records) if task.records == task.all_records else f"{task.records} of {task.all_records}"
        for metric in task.metrics:
            low, high = (format_value(metric.name, value) for value in (metric.estimate.low, metric.estimate.high))
            value = format_value(metric.name, metric.estimate.value)
            lines.append(f"| {task.name} | {asked} | {metric.name} | {value} | {low} to {high} |")
    environment = results.environment
    kernels = f"native kernels ({environment['kernels']})" if environment["kernels"] else "no native kernels"
    lines += [
        "",
        f"Base digest {results.model['base_digest']}, {results.model['dtype']}, seed {results.settings['seed']}; "
        f"phi4 {environment['phi4']}, torch {environment['libraries']['torch']}, {kernels}, {environment['device']}.",
        "",
        f"    {environment['command']}",
        "",
    ]
    return "\n".join(lines)
