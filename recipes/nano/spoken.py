"""Which voice says what: the clips of nano's speech data, for training, for validation and held out."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from phi4.data.record import Split
from recipes.nano.sentences import command, digit_string, draw, is_held_out
from recipes.nano.voices import HELD_OUT, TRAINING, Voice

Kind = Literal["digits", "command", "question", "everyday"]

SPEEDS = (0.85, 0.95, 1.0, 1.0, 1.1, 1.25)

# Sentences for each training voice. Kokoro takes half a second for each second of sound, the others next to nothing.
KOKORO_COUNTS: dict[Kind, int] = {"digits": 30, "command": 45, "question": 25, "everyday": 25}
ROBOT_COUNTS: dict[Kind, int] = {"digits": 60, "command": 80, "question": 40, "everyday": 150}
TEST_COUNTS: dict[Kind, int] = {"digits": 25, "command": 25, "question": 27}
VALID_COUNTS: dict[Kind, int] = {"digits": 1, "command": 1, "everyday": 1}


@dataclass(frozen=True)
class Utterance:
    """One clip to be synthesised.

    Attributes:
        voice: who speaks.
        text: what is said, lower case and spelled out: also the transcript.
        speed: above 1 is faster.
        kind: what sort of sentence it is.
        split: what it may be used for.
    """

    voice: Voice
    text: str
    speed: float
    kind: Kind
    split: Split


def utterances(questions: Sequence[str], everyday: Sequence[str]) -> list[Utterance]:
    """Plans all clips: held-out voices say held-out sentences, training voices the others.

    The questions about pictures are few and the same for everybody; only their voices are held out. Validation has
    training voices and held-out sentences, other ones than the test.

    Args:
        questions: the questions about easy-vqa pictures, sorted as they are written there.
        everyday: sentences of general English.

    Returns:
        The plan without repeats; the training clips are in an order in which every beginning has all voices and kinds.
    """
    source = random.Random("nano speech")
    lines = [
        *_plan("test", HELD_OUT, TEST_COUNTS, questions, everyday, source),
        *_plan("valid", TRAINING, VALID_COUNTS, questions, everyday, source),
    ]
    kokoro = [voice for voice in TRAINING if voice.engine == "kokoro"]
    robots = [voice for voice in TRAINING if voice.engine != "kokoro"]
    training = [
        *_plan("train", kokoro, KOKORO_COUNTS, questions, everyday, source),
        *_plan("train", robots, ROBOT_COUNTS, questions, everyday, source),
    ]
    source.shuffle(training)
    return list(dict.fromkeys(_disjoint(lines + training)))


def _disjoint(lines: Sequence[Utterance]) -> Iterator[Utterance]:
    """Leaves out what chance, above all among short digit strings, put into two splits: the test keeps it."""
    taken: set[str] = set()
    for split in ("test", "valid", "train"):
        part = [line for line in lines if line.split == split]
        yield from (line for line in part if line.kind == "question" or line.text not in taken)
        taken.update(line.text for line in part)


def _plan(
    split: Split,
    voices: Sequence[Voice],
    counts: dict[Kind, int],
    questions: Sequence[str],
    everyday: Sequence[str],
    source: random.Random,
) -> Iterator[Utterance]:
    held_out = split != "train"
    total = {kind: count * len(voices) for kind, count in counts.items()}
    usable = [sentence for sentence in everyday if is_held_out(sentence) == held_out]
    texts = {
        # Three digits have too few combinations to be drawn without repeats.
        "digits": [digit_string(source) for _ in range(total["digits"])],
        "command": draw(command, total["command"], held_out, source),
        "question": [source.choice(questions).rstrip("?") for _ in range(total.get("question", 0))],
        "everyday": source.sample(usable, total.get("everyday", 0)),
    }
    for kind, count in counts.items():
        for index in range(count * len(voices)):
            speed = source.choice(SPEEDS) if split == "train" else 1.0
            yield Utterance(voices[index % len(voices)], texts[kind][index], speed, kind, split)
