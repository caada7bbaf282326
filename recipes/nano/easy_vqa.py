"""Questions about one coloured shape, from the package easy-vqa: written, or spoken by synthetic voices."""

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phi4.data.record import Record, Split
from phi4.processing.messages import Image, Message, Sound, user_message
from recipes.nano.packages import EASY_VQA, fetch
from recipes.nano.records import Turn, bucket, build_record
from recipes.nano.sentences import normalise

VALID_ONE_IN = 40
SINGLE_ONE_IN = 4

SHAPES = ("circle", "rectangle", "triangle")
ANSWERS_TO_CHECK = ("yes", "no")
NAMING = "What is this?"


@dataclass(frozen=True)
class Picture:
    """One picture and what is asked about it.

    Attributes:
        name: folder and number in the package.
        split: the package's, with a fortieth of its training pictures set aside for validation.
        file: PNG.
        questions: with their answers, each once, in the package's order.
    """

    name: str
    split: Split
    file: Path
    questions: tuple[tuple[str, str], ...]


def easy_vqa_records(pictures: Sequence[Picture]) -> Iterator[Record]:
    """Yields one record for each question of the test and validation pictures, and conversations for training.

    A conversation asks all questions about its picture, in random order. The questions about a quarter of the training
    pictures are records of their own too, as in the test.
    """
    for picture in pictures:
        if picture.split == "train":
            yield _conversation(picture)
        if picture.split != "train" or bucket(f"single {picture.name}", SINGLE_ONE_IN) == 0:
            for number, (question, answer) in enumerate(picture.questions):
                turn = Turn(user_message(question, images=[picture.file.read_bytes()]), answer)
                yield build_record(f"easy_vqa/{picture.name}/{number}", [turn], EASY_VQA, picture.split, "easy_vqa")


def _conversation(picture: Picture) -> Record:
    source = random.Random(picture.name)
    (question, answer), *others = source.sample(picture.questions, len(picture.questions))
    turns = [Turn(user_message(question, images=[picture.file.read_bytes()]), answer)]
    turns += [Turn(Message("user", question), answer) for question, answer in others]
    return build_record(f"easy_vqa/{picture.name}", turns, EASY_VQA, picture.split, "easy_vqa")


def named_records(pictures: Sequence[Picture]) -> Iterator[Record]:
    """Yields training and validation pictures with their colour and shape, as far as the answers tell both."""
    for picture in pictures:
        colour, shape = _known(picture)
        if picture.split != "test" and colour and shape:
            turn = Turn(user_message(NAMING, images=[picture.file.read_bytes()]), f"{colour} {shape}")
            yield build_record(f"easy_vqa_named/{picture.name}", [turn], EASY_VQA, picture.split, "easy_vqa_named")


def _known(picture: Picture) -> tuple[str, str]:
    """Colour and shape from the answers to open questions; empty if nobody asked."""
    answers = [answer for _, answer in picture.questions if answer not in ANSWERS_TO_CHECK]
    shape = next((answer for answer in answers if answer in SHAPES), "")
    return next((answer for answer in answers if answer not in SHAPES), ""), shape


def spoken_records(
    pictures: Sequence[Picture], clips: Mapping[str, Sequence[bytes]], speaker: str, licence: str, one_in: int
) -> Iterator[Record]:
    """Yields records in which one speaker asks about some of the pictures; nothing is written.

    Args:
        pictures: all of one split.
        clips: sound files of each question that the speaker says, by its text without the question mark.
        speaker: who speaks, for the records' names and source.
        licence: of the clips.
        one_in: the speaker asks about one in so many pictures, each speaker about other ones.
    """
    for picture in pictures:
        identity = f"spoken_vqa/{picture.name}/{speaker}"
        spoken = [(text, answer) for text, answer in picture.questions if normalise(text) in clips]
        if not spoken or bucket(identity, one_in):
            continue
        source = random.Random(identity)
        question, answer = source.choice(spoken)
        sound = Sound(source.choice(clips[normalise(question)]))
        asked = Message("user", (Image(picture.file.read_bytes()), sound))
        record = build_record(identity, [Turn(asked, answer)], EASY_VQA, picture.split, "spoken_vqa")
        yield replace(record, source=f"{record.source}, {speaker}", licence=f"{record.licence}, speech {licence}")


def all_pictures() -> list[Picture]:
    """The pictures of the pinned package."""
    data = fetch(EASY_VQA) / "easy_vqa/data"
    return [*read_pictures(data / "train"), *read_pictures(data / "test")]


def read_pictures(directory: Path) -> list[Picture]:
    """Reads one of the package's splits.

    Args:
        directory: `train` or `test`, with `questions.json` and `images`.
    """
    questions: dict[int, dict[str, str]] = defaultdict(dict)
    for question, answer, number in json.loads((directory / "questions.json").read_text(encoding="utf-8")):
        questions[number][question] = answer
    return [
        Picture(
            name=f"{directory.name}/{number}",
            split=_split(directory.name, number),
            file=directory / f"images/{number}.png",
            questions=tuple(asked.items()),
        )
        for number, asked in sorted(questions.items())
    ]


def _split(folder: str, number: int) -> Split:
    if folder == "test":
        return "test"
    return "valid" if bucket(f"{folder}/{number}", VALID_ONE_IN) == 0 else "train"
