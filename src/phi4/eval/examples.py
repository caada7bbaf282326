"""Examples that stand before a question, with their right answers (few-shot)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from phi4.errors import DataError
from phi4.eval.task import Item
from phi4.processing.messages import Message

# Parts an example from what follows, where questions are plain text; lm-evaluation-harness writes them so.
BETWEEN = "\n\n"


@dataclass(frozen=True)
class Examples:
    """The examples of a task.

    Attributes:
        task: its name.
        by_group: for each group of questions.
        files: names and digests of the files that they are from.
    """

    task: str
    by_group: Mapping[str, tuple[Item, ...]]
    files: Mapping[str, Any]

    def before(self, item: Item) -> Item:
        """The item with the examples of its group in front: as turns of a conversation, or as text.

        Raises:
            DataError: there are examples, but none of its group.
        """
        if self.by_group and item.group not in self.by_group:
            raise DataError(f"{self.task}: there are no examples of {item.group!r}, which {item.id!r} belongs to")
        examples = self.by_group.get(item.group, ())
        turns = [turn for one in examples for turn in (*one.messages, Message("assistant", one.worked))]
        text = "".join(f"{one.context}{one.choices[one.right]}{BETWEEN}" for one in examples if one.choices)
        return replace(
            item,
            messages=(*turns, *item.messages) if item.messages else (),
            preface="",
            context=item.preface + text + item.context,
        )


NO_EXAMPLES = Examples("", {}, {})


def choose_examples(task: str, shots: int, items: Iterator[Item], files: Mapping[str, Any]) -> Examples:
    """Takes the first items of each group, as reports do that name theirs; the choice is the same for every question.

    Args:
        task: its name.
        shots: how many, at least 1.
        items: in the order of their files.
        files: names and digests of these.

    Raises:
        DataError: a group has fewer.
    """
    chosen: dict[str, list[Item]] = {}
    for item in items:
        own = chosen.setdefault(item.group, [])
        if len(own) < shots:
            own.append(item)
    for group, own in chosen.items():
        if len(own) < shots:
            named = f" of {group!r}" if group else ""
            raise DataError(
                f"{task}: {', '.join(files)} has {len(own)} examples{named}, not {shots}; ask for fewer shots"
            )
    return Examples(task, {group: tuple(own) for group, own in chosen.items()}, files)
