"""The results of an evaluation, as JSON and as Markdown."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from phi4.errors import ConfigError, DataError
from phi4.eval.resample import Estimate
from phi4.eval.task import Ask, Total
from phi4.files import new_file
from phi4.json_file import read_json
from phi4.svg_plots import Interval, intervals

RESULTS_FILE = "results.json"
TABLE_FILE = "results.md"
PLOT_FILE = "results.svg"


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
        shots: examples before each question.
        ask: what the model did with each item, and how: `ask_to_json` of the task's.
    """

    name: str
    records: int
    all_records: int
    metrics: tuple[MetricResult, ...]
    modalities: list[str]
    data: Mapping[str, Any]
    shots: int = 0
    ask: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name, and the number of examples if there are any."""
        return f"{self.name} ({self.shots}-shot)" if self.shots else self.name


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


def ask_to_json(ask: Ask) -> dict[str, Any]:
    """How a task asks, with all settings of sampling, as a file of JSON gives it back."""
    described: dict[str, Any] = json.loads(json.dumps({"kind": type(ask).__name__, **asdict(ask)}))
    return described


def write_results(results: Results, folder: Path) -> None:
    """Writes `results.json`, and `results.md` with a plot, `results.svg`."""
    with new_file(folder / RESULTS_FILE) as partial:
        partial.write_text(json.dumps(asdict(results), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    text = to_markdown(results)
    if results.tasks:
        (folder / PLOT_FILE).write_text(intervals(_plotted(results)), encoding="utf-8")
        text += f"\n![values with 95 % intervals]({PLOT_FILE})\n"
    (folder / TABLE_FILE).write_text(text, encoding="utf-8")


def read_results(folder: Path) -> Results:
    """Reads what `phi4 eval` wrote.

    Raises:
        DataError: the folder holds no results, or they are damaged.
    """
    path = folder / RESULTS_FILE
    if not path.is_file():
        raise DataError(f"{folder} holds no evaluation: there is no {path}; `phi4 eval --out {folder}` makes one")
    try:
        raw = read_json(path)
        tasks = {name: _read_task(task) for name, task in raw["tasks"].items()}
        return Results(dict(raw["model"]), dict(raw["settings"]), dict(raw["environment"]), tasks)
    except ConfigError as error:
        raise DataError(f"{folder} holds no evaluation: {error}; evaluate again into another folder") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error!r}); evaluate again into another folder") from error


def _read_task(raw: Mapping[str, Any]) -> TaskResult:
    metrics = tuple(MetricResult(**{**metric, "estimate": Estimate(**metric["estimate"])}) for metric in raw["metrics"])
    return TaskResult(**{**raw, "metrics": metrics})


def is_share(metric: str) -> bool:
    """Whether a metric is a share of something; BLEU, perplexity and the like are not."""
    return metric not in ("BLEU", "chrF", "word perplexity", "bits per byte")


def format_value(metric: str, value: float) -> str:
    """A value as people write it: shares in per cent, everything else as it is."""
    if is_share(metric):
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if metric == "bits per byte" else f"{value:,.1f}"


def plot_row(label: str, metric: str, estimate: Estimate) -> Interval:
    """A row of a plot; shares have the scale up to 100 %, everything else one of its own."""
    value, low, high = (format_value(metric, one) for one in (estimate.value, estimate.low, estimate.high))
    top = max(1.0, estimate.high) if is_share(metric) else 1.1 * estimate.high
    return Interval(label, estimate.value, estimate.low, estimate.high, f"{value} ({low} to {high})", (0.0, top))


def _plotted(results: Results) -> list[Interval]:
    return [
        plot_row(f"{task.title}, {metric.name}", metric.name, metric.estimate)
        for task in results.tasks.values()
        for metric in task.metrics
    ]


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
            lines.append(f"| {task.title} | {asked} | {metric.name} | {value} | {low} to {high} |")
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
