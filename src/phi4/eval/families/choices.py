"""Questions with given answers, of which the most probable one counts: MMLU, ARC, HellaSwag.

Contexts and choices are written as lm-evaluation-harness writes them.
"""

import re

from phi4.eval.metrics import ACCURACY, ACCURACY_BY_LENGTH
from phi4.eval.rows import SourceRow
from phi4.eval.task import Choose, Item, Rows, Task

LETTERS = "ABCDEFGHIJ"


def _subject(row: SourceRow) -> Item:
    choices = row.texts("choices")
    right = row.value("answer")
    if type(right) is not int or not 0 <= right < len(choices) <= len(LETTERS):
        raise row.error(f"answer must be the place of one of the choices, counted from 0, not {right!r}")
    subject = row.text("subject").replace("_", " ")
    listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, choices, strict=False))
    return Item(
        f"{row.file.stem} {row.number}",
        preface=f"The following are multiple choice questions (with answers) about {subject}.\n\n",
        context=f"{row.text('question').strip()}\n{listed}Answer:",
        choices=tuple(f" {letter}" for letter in LETTERS[: len(choices)]),
        right=right,
        group=subject,
    )


def _science(row: SourceRow) -> Item:
    listed = row.value("choices")
    if not isinstance(listed, dict) or not all(isinstance(listed.get(name), list) for name in ("text", "label")):
        raise row.error("choices must be an object with the lists text and label")
    labels = list(listed["label"])
    if len(labels) != len(listed["text"]):
        raise row.error(f"choices has {len(listed['text'])} texts and {len(labels)} labels")
    if row.text("answerKey") not in labels:
        raise row.error(f"answerKey {row.text('answerKey')!r} is none of the labels {labels}")
    return Item(
        row.text("id"),
        context=f"Question: {row.text('question')}\nAnswer:",
        choices=tuple(f" {text}" for text in listed["text"]),
        right=labels.index(row.text("answerKey")),
    )


def _ending(row: SourceRow) -> Item:
    endings = row.texts("endings")
    label = row.text("label")
    if not label.isdecimal() or int(label) >= len(endings):
        raise row.error(f"label must be the place of one of the endings, counted from 0, not {label!r}")
    context = f"{row.text('activity_label')}: {row.text('ctx_a')} {row.text('ctx_b').capitalize()}"
    return Item(
        f"{row.number}",
        context=_without_brackets(context),
        choices=tuple(f" {_without_brackets(ending)}" for ending in endings),
        right=int(label),
    )


def _without_brackets(text: str) -> str:
    """WikiHow's leftovers, [title] and the like, are taken out."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


TASKS = (
    Task(
        name="mmlu",
        ask=Choose(),
        metrics=(ACCURACY,),
        rows=Rows(
            "question, subject, choices, and answer as the place of the right choice",
            _subject,
            "cais/mmlu",
            "all/test*",
            examples="all/dev*",
        ),
    ),
    *(
        Task(
            name=name,
            ask=Choose(),
            metrics=(ACCURACY, ACCURACY_BY_LENGTH),
            rows=Rows(
                "id, question, choices with text and label, and answerKey",
                _science,
                "allenai/ai2_arc",
                f"{folder}/test*",
                examples=f"{folder}/train*",
            ),
        )
        for name, folder in (("arc_easy", "ARC-Easy"), ("arc_challenge", "ARC-Challenge"))
    ),
    Task(
        name="hellaswag",
        ask=Choose(),
        metrics=(ACCURACY_BY_LENGTH, ACCURACY),
        rows=Rows(
            "activity_label, ctx_a, ctx_b, endings, and label as the place of the right ending",
            _ending,
            "Rowan/hellaswag",
            "*validation*",
            examples="*train*",
        ),
    ),
)
