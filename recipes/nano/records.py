"""Records from questions and answers, and choices that depend on nothing but a text."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from phi4.data.record import Record, Split
from phi4.processing.messages import Message
from recipes.nano.packages import Package


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    Attributes:
        question: the user's message, with its pictures and sounds.
        answer: what the model is to say.
    """

    question: Message
    answer: str


def build_record(record_id: str, turns: Sequence[Turn], package: Package, split: Split, task: str) -> Record:
    """Makes a conversation of these turns, with the provenance of the package that its media come from."""
    messages = [
        message for turn in turns for message in (turn.question, Message(role="assistant", content=turn.answer))
    ]
    return Record(
        id=record_id,
        messages=tuple(messages),
        source=f"{package.registry} {package.name} {package.version}",
        licence=package.licence,
        split=split,
        task=task,
    )


def bucket(text: str, count: int) -> int:
    """Which of `count` equal buckets a text falls into, by its SHA-256: the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % count
