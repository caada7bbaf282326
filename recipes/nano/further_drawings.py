"""More drawings of the same emoji, for training alone: the glyphs of fonts, renderings, and icons with the same name.

A tower that has seen a name in five styles names half of its drawings in others, one that has seen it in nine three
quarters. None of these styles is held out, and none says which names there are.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fontTools.pens.boundsPen import BoundsPen
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.ttLib import TTFont

from recipes.nano.emoji_drawings import (
    Drawing,
    Emoji,
    IconSet,
    all_drawings,
    all_emoji,
    normal_points,
    read_icon_set,
    squash,
)
from recipes.nano.packages import FURTHER_STYLES, ICON_SETS, fetch

# How much of a glyph's larger side is added around it, on each side.
GLYPH_MARGIN = 0.05
# Where the characters of the keyboard end: fonts show "#" as a letter, and not as a key.
LAST_ASCII = 0x7F

# What icon sets append to the names of variants, of which one is enough.
VARIANT = re.compile(
    r"(-(fill|filled|line|outline|outlined|bold|duotone|thin|light|regular|color|solid|twotone|rounded|sharp|linear"
    r"|broken|\d+))+$"
)


def all_further_drawings() -> Iterator[Drawing]:
    """Those of the emoji that `all_drawings` has, style by style."""
    names = {drawing.name for drawing in all_drawings()}
    emoji = [member for member in all_emoji() if member.has_name and member.name in names]
    fonts = fetch(FURTHER_STYLES["symbola"]), fetch(FURTHER_STYLES["unifont"]) / "usr/share/fonts/opentype/unifont"
    yield from glyphs("symbola", fonts[0].rglob("Symbola*.ttf"), emoji)
    yield from glyphs("unifont", (fonts[1] / name for name in ("unifont.otf", "unifont_upper.otf")), emoji)
    yield from renderings("fluent-3d", fetch(FURTHER_STYLES["fluent-3d"]) / "package/assets", emoji)
    for style, package in ICON_SETS.items():
        yield from icons(style, read_icon_set(fetch(package) / "package"), emoji)


def glyphs(style: str, files: Iterable[Path], emoji: Sequence[Emoji]) -> Iterator[Drawing]:
    """The glyphs of single characters, black on white.

    Args:
        style: a key of `packages.FURTHER_STYLES`.
        files: of its font; the first that has a character shows it.
        emoji: what is looked for.
    """
    left = {int(member.code_points, 16): member for member in emoji if "-" not in member.code_points}
    for file in files:
        font = TTFont(file)
        shown, characters = font.getGlyphSet(), font.getBestCmap()
        for point in sorted(left.keys() & characters.keys()):
            if point > LAST_ASCII and (document := _glyph_document(shown, characters[point])):
                member = left.pop(point)
                yield Drawing(style, member.code_points, member.name, document)


def _glyph_document(shown: Mapping[str, Any], glyph: str) -> str:
    """A glyph in the middle of a square; empty if nothing is to be seen."""
    bounds, path = BoundsPen(shown), SVGPathPen(shown)
    shown[glyph].draw(bounds)
    shown[glyph].draw(path)
    if bounds.bounds is None:
        return ""
    left, bottom, right, top = bounds.bounds
    side = max(right - left, top - bottom) * (1 + 2 * GLYPH_MARGIN)
    corner = (left + right - side) / 2, (bottom + top - side) / 2
    # Fonts measure upwards, SVG downwards.
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{corner[0]} {-corner[1] - side} {side} {side}">'
        f'<path transform="scale(1 -1)" d="{path.getCommands()}"/></svg>'
    )


def renderings(style: str, directory: Path, emoji: Sequence[Emoji]) -> Iterator[Drawing]:
    """WebP files that are named after code points.

    Args:
        style: a key of `packages.FURTHER_STYLES`.
        directory: has the files.
        emoji: what is looked for.
    """
    files = {normal_points(file.stem): file for file in sorted(directory.glob("*.webp"))}
    for member in emoji:
        # These names have four digits at least, those of the standard two.
        points = "-".join(point.rjust(4, "0") for point in member.code_points.split("-"))
        if points in files:
            content = base64.b64encode(files[points].read_bytes()).decode()
            document = (
                '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">'
                f'<image width="1" height="1" href="data:image/webp;base64,{content}"/></svg>'
            )
            yield Drawing(style, member.code_points, member.name, document)


def icons(style: str, icon_set: IconSet, emoji: Sequence[Emoji]) -> Iterator[Drawing]:
    """Icons that are called like an emoji, one for each.

    Args:
        style: a key of `packages.ICON_SETS`.
        icon_set: what it has.
        emoji: what is looked for: by the label, or else by a shortcode that no other emoji has.
    """
    labels = {squash(member.label): member.name for member in emoji}
    owners = Counter(name for member in emoji for name in {squash(shortcode) for shortcode in member.shortcodes})
    shortcodes = {
        squash(shortcode): member.name
        for member in emoji
        for shortcode in member.shortcodes
        if owners[squash(shortcode)] == 1
    }
    names, found = shortcodes | labels, set()
    for icon, document in icon_set.icons.items():
        name = names.get(squash(VARIANT.sub("", icon)))
        if name is not None and name not in found:
            found.add(name)
            yield Drawing(style, icon, name, document.replace("currentColor", "#000000"))
