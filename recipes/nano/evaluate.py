"""Scores nano on its held-out data: `python -m recipes.nano.evaluate --pack P --data DIR --out results.json`.

Answers are greedy answers of the whole model, with no list of candidates. What is held out, and how, stands with each
data set's builder.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from phi4 import Assistant
from phi4.files import file_digest, new_file
from phi4.json_file import read_json
from phi4.score import HeldOut, Score, answer_records, read_held_out, score_answers
from recipes.nano.command import run
from recipes.nano.sentences import word_to_digit

# Longer than any answer of the held-out data but Asterisk's longest prompts.
MAX_TOKENS = 48
LONG_TASKS = {"asterisk": 160}

# What is written of one task.
Result = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """What a task is judged by.

    Attributes:
        name: of the number.
        value: from the task's score.
        target: what it should reach; None where it is only to be reported.
        lower_is_better: whether the target is an upper limit.
    """

    name: str
    value: Callable[[Score], float]
    target: float | None
    lower_is_better: bool = False

    @property
    def target_text(self) -> str:
        """The target for people; empty without one."""
        return "" if self.target is None else f"{'≤' if self.lower_is_better else '≥'} {self.target:.0%}"

    def is_met(self, score: Score) -> bool | None:
        """Whether the target is reached; None without a target."""
        if self.target is None:
            return None
        return self.value(score) <= self.target if self.lower_is_better else self.value(score) >= self.target


EXACT = "exact answers"
MEASURES = {
    "emoji": Measure(EXACT, lambda score: score.exact, 0.80),
    "easy_vqa": Measure(EXACT, lambda score: score.exact, 0.96),
    "text_line": Measure("characters", lambda score: score.character_accuracy, 0.95),
    "digits": Measure("digits", lambda score: score.character_accuracy, 0.97),
    "command": Measure("word error rate", lambda score: score.word_error_rate, 0.12, lower_is_better=True),
    "question": Measure("word error rate", lambda score: score.word_error_rate, None, lower_is_better=True),
    "asterisk": Measure("word error rate", lambda score: score.word_error_rate, None, lower_is_better=True),
    "sanity": Measure("word error rate", lambda score: score.word_error_rate, None, lower_is_better=True),
    "spoken_vqa": Measure(EXACT, lambda score: score.exact, 0.85),
}


def main(
    pack: Annotated[list[Path], typer.Option(help="vision.safetensors, speech.safetensors.")],
    data: Annotated[Path, typer.Option(help="What recipes.nano.build wrote.")],
    out: Annotated[Path, typer.Option(help="JSON file for the results; OUT.partial has those of finished tasks.")],
    limit: Annotated[int | None, typer.Option(help="At most so many records of each task, drawn at random.")] = None,
) -> None:
    """Answers the test records of every task that the packs have the modality for, and writes the scores.

    The same command goes on where it was stopped: what OUT.partial has of the same packs, records and data is kept.
    """
    assistant = Assistant.load("nano", packs=pack)
    tasks = [task for task in read_held_out(data) if task.modalities <= assistant.loaded.config.adapters.keys()]
    if limit is not None:
        tasks = [replace(task, records=task.records.sample(limit)) for task in tasks]
    out.parent.mkdir(parents=True, exist_ok=True)
    # Whoever finds OUT, such as `make nano`, takes the evaluation for finished.
    so_far = out.with_name(f"{out.name}.partial")
    packs = {path.name: file_digest(path) for path in pack}
    asked = {held_out.task: describe(held_out, packs, is_limited=limit is not None) for held_out in tasks}
    results = read_finished(so_far, asked)
    for task in results:
        print(f"{task}: kept")
    write_results(so_far, results)
    remaining = [held_out for held_out in tasks if held_out.task not in results]
    with Progress(console=Console(stderr=True)) as progress:
        for held_out in remaining:
            score = run_task(assistant, held_out, progress)
            results[held_out.task] = asked[held_out.task] | judge(held_out.task, score)
            write_results(so_far, results)
    so_far.replace(out)
    Console().print(results_table(results))


def describe(held_out: HeldOut, packs: Mapping[str, str], is_limited: bool) -> Result:
    """What is known of a task's result before the task is run; where all of it is the same, so is the result.

    Args:
        held_out: the task, with the records that were drawn.
        packs: SHA-256 of those that answer, by name.
        is_limited: whether no more than so many records were to be drawn.
    """
    measure = MEASURES[held_out.task]
    return {
        "records": len(held_out.records),
        "all_records": not is_limited,
        "measure": measure.name,
        "target": measure.target,
        "packs": dict(packs),
        # Equal data and an equal number of records are the same records: they are always drawn alike.
        "data": held_out.records.records.digest,
    }


def read_finished(path: Path, asked: Mapping[str, Result]) -> dict[str, Result]:
    """What an evaluation that was stopped left: the results of tasks that were then asked just as they are now."""
    left = read_json(path) if path.is_file() else {}
    return {task: left[task] for task, known in asked.items() if task in left and left[task] | known == left[task]}


def run_task(assistant: Assistant, held_out: HeldOut, progress: Progress) -> Score:
    """Answers the records of one task, and scores the answers."""
    records = len(held_out.records)
    answers = answer_records(assistant, held_out.records, LONG_TASKS.get(held_out.task, MAX_TOKENS))
    given = dict(progress.track(answers, total=records, description=held_out.task))
    return score_task(held_out, [given[place] for place in range(records)])


def judge(task: str, score: Score) -> Result:
    """What becomes known of a task's result when the task is run."""
    return {"value": MEASURES[task].value(score), "met": MEASURES[task].is_met(score)}


def score_task(held_out: HeldOut, answers: Sequence[str]) -> Score:
    """Scores the answers to one task; digit strings are compared digit by digit."""
    expected = [record.answer for record in held_out.records]
    if held_out.task == "digits":
        return score_answers([to_digits(text) for text in expected], [to_digits(text) for text in answers])
    return score_answers(expected, answers)


def to_digits(text: str) -> str:
    """The digits that a transcript spells."""
    return word_to_digit(text.split())


def write_results(path: Path, results: Mapping[str, Result]) -> None:
    """Writes what is known of each task that is done."""
    with new_file(path) as partial:
        partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def results_table(results: Mapping[str, Result]) -> Table:
    """The results for people."""
    table = Table("task", "records", "measure", "value", "target")
    for task, result in results.items():
        figures = (f"{result['records']:,}", result["measure"], f"{result['value']:.1%}")
        table.add_row(task, *figures, MEASURES[task].target_text)
    return table


if __name__ == "__main__":
    run(main)
