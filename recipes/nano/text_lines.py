"""One line of rendered text, to be read. Whole font families and a tenth of all words are held out for the test."""

import io
import math
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import PIL.ImageFont

from phi4.data.record import Record, Split
from phi4.processing.messages import user_message
from recipes.nano.packages import FONTS, WORDNET, Package, fetch
from recipes.nano.records import Turn, bucket, build_record

# A humanist sans serif, a typewriter face with its relatives, and a serif: the beginnings of their file names.
HELD_OUT_FAMILIES = ("Lato", "Courier Prime", "C059")
# Symbols, formulas, keys, letters that are drawn as capitals or as outlines, and strokes too thin for small pictures.
UNUSABLE = re.compile(
    r"D050000L|StandardSymbols|MathTeX|LinBiolinum_K|LinLibertine_[IM]$|Smallcaps|RomandeADFS(?:cript|tyle)|Outline"
    r"|Hairline|Thin|ExtraLight"
)

LINES: Mapping[Split, int] = {"train": 20000, "valid": 200, "test": 500}

HEIGHT_PX = 64
MAX_WIDTH_PX = 448
FONT_SIZES_PX = (26, 44)
MAX_WORDS = 4
MARGIN_PX = 8
MAX_SHIFT_PX = 3

NUMBER_SHARE = 0.12
CAPITAL_SHARE = 0.3
BLACK_ON_WHITE_SHARE = 0.3
LIGHT_ON_DARK_SHARE = 0.3
DARK_GREYS = (30, 70)
LIGHT_GREYS = (185, 225)
MAX_TINT = 30
BLUR_SHARE = 0.3
MAX_BLUR_PX = 0.9
# How much higher or lower than its middle a line begins.
MAX_TILT_PX = 3.0

TEST_QUESTION = "Read the text."
QUESTIONS = (TEST_QUESTION, "What does it say?", "What is written here?", "Transcribe the text in the picture.")


@dataclass(frozen=True)
class Face:
    """One font file.

    Attributes:
        file: TrueType or OpenType.
        family: the beginning of its name, which its relatives share.
        package: that it comes from.
    """

    file: Path
    family: str
    package: Package

    @property
    def is_held_out(self) -> bool:
        """Whether it is for the test only."""
        return self.family in HELD_OUT_FAMILIES


@dataclass(frozen=True)
class Look:
    """How a line is drawn.

    Attributes:
        size_px: of the font.
        ink: red, green and blue of the letters.
        ground: red, green and blue behind them.
        shift_px: to the right and down from the middle.
        tilt_px: how much lower than its middle the line begins.
        blur_px: radius; 0 is sharp.
    """

    size_px: int
    ink: tuple[int, int, int] = (0, 0, 0)
    ground: tuple[int, int, int] = (255, 255, 255)
    shift_px: tuple[int, int] = (0, 0)
    tilt_px: float = 0.0
    blur_px: float = 0.0


def text_line_records(
    faces: Sequence[Face], words: Sequence[str], lines: Mapping[Split, int] = LINES
) -> Iterator[Record]:
    """Yields pictures of random words, each with what is written.

    Args:
        faces: all fonts; the test has the held-out ones, the other splits have the others.
        words: lower case; each belongs to one split.
        lines: how many of each split.
    """
    for split, count in lines.items():
        families = defaultdict(list)
        for face in faces:
            if face.is_held_out == (split == "test"):
                families[face.family].append(face)
        usable = [word for word in words if word_split(word) == split]
        for number in range(count):
            identity = f"text_line/{split}/{number}"
            source = random.Random(identity)
            face = source.choice(families[source.choice(list(families))])
            look = test_look(source) if split == "test" else training_look(source)
            text = fitting_text(draw_words(usable, split, source), load_font(face.file, look.size_px))
            question = source.choice(QUESTIONS) if split == "train" else TEST_QUESTION
            turn = Turn(user_message(question, images=[render(text, face.file, look)]), text)
            yield build_record(identity, [turn], face.package, split, "text_line")


def word_split(word: str) -> Split:
    """A tenth of all words, by their hash, is for the test, and a fiftieth for validation."""
    place = bucket(word.lower(), 50)
    return "test" if place < 5 else "valid" if place == 5 else "train"


def draw_words(words: Sequence[str], split: Split, source: random.Random) -> list[str]:
    """One to four words and numbers of a split."""
    drawn: list[str] = []
    for _ in range(source.randint(1, MAX_WORDS)):
        if source.random() < NUMBER_SHARE:
            drawn.append(_draw_number(split, source))
        else:
            word = source.choice(words)
            drawn.append(word.capitalize() if source.random() < CAPITAL_SHARE else word)
    return drawn


def _draw_number(split: Split, source: random.Random) -> str:
    while True:
        number = str(source.randrange(10 ** source.randint(1, 4)))
        if word_split(number) == split:
            return number


def fitting_text(words: Sequence[str], font: PIL.ImageFont.FreeTypeFont) -> str:
    """As many of the words as fit into the widest picture, and at least one."""
    count = len(words)
    while count > 1 and font.getlength(" ".join(words[:count])) > MAX_WIDTH_PX - 2 * (MARGIN_PX + MAX_SHIFT_PX):
        count -= 1
    return " ".join(words[:count])


def test_look(source: random.Random) -> Look:
    """Black on white, upright and sharp, in some size and near the middle."""
    return Look(size_px=source.randint(*FONT_SIZES_PX), shift_px=_draw_shift(source))


def training_look(source: random.Random) -> Look:
    """Black on white, or a dark and a light tint of grey, slightly tilted and perhaps blurred."""
    dark, light = _tinted(DARK_GREYS, source), _tinted(LIGHT_GREYS, source)
    if source.random() < BLACK_ON_WHITE_SHARE:
        dark, light = (0, 0, 0), (255, 255, 255)
    ink, ground = (light, dark) if source.random() < LIGHT_ON_DARK_SHARE else (dark, light)
    return Look(
        size_px=source.randint(*FONT_SIZES_PX),
        ink=ink,
        ground=ground,
        shift_px=_draw_shift(source),
        tilt_px=source.uniform(-MAX_TILT_PX, MAX_TILT_PX),
        blur_px=source.uniform(0.0, MAX_BLUR_PX) if source.random() < BLUR_SHARE else 0.0,
    )


def _draw_shift(source: random.Random) -> tuple[int, int]:
    return source.randint(-MAX_SHIFT_PX, MAX_SHIFT_PX), source.randint(-MAX_SHIFT_PX, MAX_SHIFT_PX)


def _tinted(greys: tuple[int, int], source: random.Random) -> tuple[int, int, int]:
    grey = source.randint(*greys)
    red, green, blue = (grey + source.randint(-MAX_TINT, MAX_TINT) for _ in range(3))
    return red, green, blue


def render(text: str, file: Path, look: Look) -> bytes:
    """Draws one line of text in the middle of a picture that is as wide as it needs to be: a PNG file."""
    font = load_font(file, look.size_px)
    left, _, right, _ = font.getbbox(text)
    width = min(MAX_WIDTH_PX, round(right - left) + 2 * (MARGIN_PX + MAX_SHIFT_PX))
    # The line's own height, not that of its letters, so that "on" and "by" share a base line.
    ascent, descent = font.getmetrics()
    origin = (width - right - left) / 2 + look.shift_px[0], (HEIGHT_PX - ascent - descent) / 2 + look.shift_px[1]
    mask = PIL.Image.new("L", (width, HEIGHT_PX))
    PIL.ImageDraw.Draw(mask).text(origin, text, fill=255, font=font)
    mask = mask.rotate(math.degrees(math.atan2(2 * look.tilt_px, width)), PIL.Image.Resampling.BICUBIC)
    if look.blur_px:
        mask = mask.filter(PIL.ImageFilter.GaussianBlur(look.blur_px))
    picture = PIL.Image.new("RGB", mask.size, look.ground)
    picture.paste(look.ink, mask=mask)
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()


@cache
def load_font(file: Path, size_px: int) -> PIL.ImageFont.FreeTypeFont:
    """Opens a font, with the simple layout, which is the same everywhere."""
    return PIL.ImageFont.truetype(file, size_px, layout_engine=PIL.ImageFont.Layout.BASIC)


def all_faces() -> list[Face]:
    """The text faces of all pinned packages."""
    return [
        Face(file, font_family(file.stem), package)
        for package in FONTS.values()
        for file in sorted(fetch(package).rglob("*.[ot]tf"))
        if not UNUSABLE.search(file.stem)
    ]


def font_family(stem: str) -> str:
    """The family of a font file: "Lato" for "Lato-BoldItalic"."""
    held_out = (family for family in HELD_OUT_FAMILIES if stem.startswith(family))
    return next(held_out, re.split("[-_ ]", stem)[0])


def all_words() -> list[str]:
    """The words of WordNet that are plain letters, two to ten of them."""
    words = set()
    for part in ("noun", "verb", "adj", "adv"):
        lines = (fetch(WORDNET) / f"usr/share/wordnet/index.{part}").read_text(encoding="utf-8").splitlines()
        words |= {line.partition(" ")[0] for line in lines}
    return sorted(word for word in words if re.fullmatch(r"[a-z]{2,10}", word))
