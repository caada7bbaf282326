"""Emoji to name: one picture, one answer, and conversations about several pictures."""

import io
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache

import PIL.Image
import PIL.ImageOps
import resvg_py

from phi4.data.record import Record
from phi4.processing.messages import user_message
from recipes.nano.emoji_drawings import Drawing
from recipes.nano.model import VISION
from recipes.nano.packages import FURTHER_STYLES, ICON_SETS, STYLES
from recipes.nano.records import Turn, bucket, build_record

PACKAGES = {**STYLES, **FURTHER_STYLES, **ICON_SETS}

# One crop of nano's tower: a larger picture would take several, and several times as long.
SIDE_PX: int = VISION["embd_layer"]["image_embd_layer"]["crop_size"]

TEST_QUESTION = "What is this?"
QUESTIONS = (
    TEST_QUESTION,
    "Name this emoji.",
    "What does this picture show?",
    "What is in the picture?",
    "What do you see?",
    "Which emoji is this?",
)

# Conversations about several pictures: how often each training drawing is used, and how many stand in one.
ROUNDS = 3
PICTURES = (2, 3, 4)


def emoji_records(drawings: Iterable[Drawing]) -> Iterator[Record]:
    """One record for each drawing: a picture, a question, the name."""
    for drawing in drawings:
        identity = f"emoji/{drawing.style}/{drawing.icon}"
        question = QUESTIONS[bucket(identity, len(QUESTIONS))] if drawing.split == "train" else TEST_QUESTION
        yield build_record(identity, [ask(drawing, question)], PACKAGES[drawing.style], drawing.split, "emoji")


def emoji_many_records(drawings: Iterable[Drawing]) -> Iterator[Record]:
    """Conversations in which two to four training drawings of one style are named one after the other."""
    styles: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in drawings:
        if drawing.split == "train":
            styles[drawing.style].append(drawing)
    source = random.Random("emoji many")
    for round_number in range(ROUNDS):
        for style, members in styles.items():
            rest = source.sample(members, len(members))
            while len(rest) >= min(PICTURES):
                count = source.choice(PICTURES)
                group, rest = rest[:count], rest[count:]
                turns = [ask(drawing, source.choice(QUESTIONS)) for drawing in group]
                identity = f"emoji_many/{round_number}/{style}/{group[0].icon}"
                yield build_record(identity, turns, PACKAGES[style], "train", "emoji_many")


def ask(drawing: Drawing, question: str) -> Turn:
    """The turn in which a drawing is named."""
    return Turn(user_message(question, images=[render(drawing.svg)]), drawing.name)


@cache
def render(svg: str) -> bytes:
    """Draws an SVG document in the middle of a white square: a PNG file."""
    drawn = resvg_py.svg_to_bytes(
        svg_string=svg, width=SIDE_PX, height=SIDE_PX, background="#ffffff", skip_system_fonts=True
    )
    file = io.BytesIO()
    picture = PIL.Image.open(io.BytesIO(drawn)).convert("RGB")
    # One that is not square fills its longer side.
    PIL.ImageOps.pad(picture, (SIDE_PX, SIDE_PX), color="#ffffff").save(file, format="PNG", optimize=True)
    return file.getvalue()
