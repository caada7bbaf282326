"""Which drawing shows which emoji, in the drawing styles of Iconify. Whole styles are held out for the test.

Every drawing set spells its icons in its own way. A set that lists code points is matched by them; the icons of the
others are looked up among all names that an emoji goes by.
"""

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from phi4.data.record import Split
from recipes.nano.packages import EMOJI_NAMES, STYLES, fetch
from recipes.nano.records import bucket

HELD_OUT_STYLES = frozenset({"noto", "noto-v1", "twemoji"})
MIN_STYLES = 8
MIN_TRAINING_STYLES = 4
VALID_ONE_IN = 40

JOINER = "200d"

# Icons that show something else than their name says, and what; "" is nothing with a name, or not drawn rightly.
MISNAMED = {
    "fxemoji": {
        "beatingheart": "",
        "bunny": "rabbit face",
        "bunnyside": "rabbit",
        "cat": "cat face",
        "catside": "cat",
        "construction": "",
        "constructionsign": "construction",
        "darksunglasses": "sunglasses",
        "dog": "dog face",
        "dogside": "dog",
        "down": "",
        "keyboard": "musical keyboard",
        "leopardside": "leopard",
        "mouse": "mouse face",
        "mouseside": "mouse",
        "pig": "pig face",
        "pigside": "pig",
        "pout": "person pouting",
        "pouting": "enraged face",
        "sunglasses": "smiling face with sunglasses",
        "tiger": "tiger face",
        "tigerside": "tiger",
        "tramcar": "",
        "umbrella": "closed umbrella",
        "wave": "",
        "window": "",
    },
    "emojione-v1": {"keyboard": "", "window": ""},
    "openmoji": {"scroll": ""},
    "streamline-emojis": {"right-anger-bubble": "", "turkey": ""},
}


@dataclass(frozen=True)
class Emoji:
    """One emoji of the Unicode standard.

    Attributes:
        code_points: lower-case hexadecimal, joined by hyphens, without the variation selector FE0F.
        label: its English name in CLDR.
        shortcodes: other names, as chat programs use them.
        has_name: whether it is one of those that the model learns to name.
    """

    code_points: str
    label: str
    shortcodes: tuple[str, ...]
    has_name: bool

    @property
    def name(self) -> str:
        """The answer: the label in lower case, with typewriter quotes."""
        return self.label.lower().translate(str.maketrans("’“”", '\'""'))


@dataclass(frozen=True)
class IconSet:
    """One drawing style in the format of Iconify.

    Attributes:
        icons: the SVG document of each icon.
        characters: the icon of each emoji, by code points; empty if the set does not say.
        aliases: the icon behind each of its further names.
    """

    icons: Mapping[str, str]
    characters: Mapping[str, str]
    aliases: Mapping[str, str]


@dataclass(frozen=True)
class Drawing:
    """One emoji in one style.

    Attributes:
        style: a key of `STYLES`, `FURTHER_STYLES` or `ICON_SETS` in packages.py.
        icon: its name in the set.
        name: of the emoji: the answer.
        svg: the document.
    """

    style: str
    icon: str
    name: str
    svg: str

    @property
    def split(self) -> Split:
        """Held-out styles are the test; of the others in `STYLES`, one drawing in forty is for validation."""
        if self.style in HELD_OUT_STYLES:
            return "test"
        is_chosen = self.style in STYLES and bucket(f"{self.style}/{self.icon}", VALID_ONE_IN) == 0
        return "valid" if is_chosen else "train"


def all_emoji() -> list[Emoji]:
    """The emoji of the standard."""
    return read_emoji(fetch(EMOJI_NAMES) / "package/en")


@cache
def all_drawings() -> tuple[Drawing, ...]:
    """The drawings, in the pinned styles, of emoji that have a name."""
    sets = {style: read_icon_set(fetch(package) / "package") for style, package in STYLES.items()}
    return tuple(match_drawings(sets, all_emoji()))


def match_drawings(sets: Mapping[str, IconSet], emoji: Sequence[Emoji]) -> list[Drawing]:
    """Finds the drawings of each emoji, and keeps those whose name can be learnt and tested.

    A name needs drawings in `MIN_STYLES` styles, among them a held-out one and `MIN_TRAINING_STYLES` others. A drawing
    that a style uses for several emoji (coloured hearts in black and white) names none of them and is left out.
    """
    tables = name_tables(sets, emoji)
    found = {style: _match_style(icon_set, tables, MISNAMED.get(style, {})) for style, icon_set in sets.items()}
    kept = []
    for member in emoji:
        styles = {style for style, icons in found.items() if icons.get(member.code_points)}
        enough = len(styles) >= MIN_STYLES and len(styles - HELD_OUT_STYLES) >= MIN_TRAINING_STYLES
        if member.has_name and enough and styles & HELD_OUT_STYLES:
            kept.append(member)
    drawings = []
    for style, icon_set in sets.items():
        owners: dict[str, set[str]] = defaultdict(set)
        pairs = [(member, icon) for member in kept for icon in found[style].get(member.code_points, ())]
        for member, icon in pairs:
            owners[icon_set.icons[icon]].add(member.name)
        for member, icon in pairs:
            if len(owners[icon_set.icons[icon]]) == 1:
                drawings.append(Drawing(style, icon, member.name, icon_set.icons[icon]))
    return drawings


def _match_style(
    icon_set: IconSet, tables: Sequence[Mapping[str, str]], misnamed: Mapping[str, str]
) -> dict[str, list[str]]:
    """The icons of each emoji in one set, by code points."""
    if icon_set.characters:
        usable = icon_set.icons.keys() - misnamed.keys()
        return {points: [icon] for points, icon in icon_set.characters.items() if icon in usable}
    ranked: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for icon in icon_set.icons:
        # "pizza-1" and "pizza-2" are two drawings of one emoji.
        name = misnamed.get(icon, icon)
        for spelling in (squash(name), squash(re.sub(r"-[1-9]$", "", name))):
            rank = next((rank for rank, table in enumerate(tables) if spelling in table), None)
            if rank is not None:
                ranked[tables[rank][spelling]][rank].append(icon)
                break
    return {points: ranks[min(ranks)] for points, ranks in ranked.items()}


def name_tables(sets: Mapping[str, IconSet], emoji: Sequence[Emoji]) -> list[dict[str, str]]:
    """Code points by squashed name, the most reliable names first.

    They are the labels, the names in sets that list code points, the names of single characters in the Unicode
    standard, and the shortcodes. A name that is not unique in its table is left out of it.
    """
    known = {member.code_points for member in emoji}
    icons = [
        (name, points)
        for icon_set in sets.values()
        for points, icon in icon_set.characters.items()
        for name in (icon, *(alias for alias, parent in icon_set.aliases.items() if parent == icon))
        if points in known
    ]
    single = [member.code_points for member in emoji if "-" not in member.code_points]
    return [
        _unique((member.label, member.code_points) for member in emoji),
        _unique(icons),
        _unique((unicodedata.name(chr(int(points, 16)), ""), points) for points in single),
        _unique((shortcode, member.code_points) for member in emoji for shortcode in member.shortcodes),
    ]


def _unique(names: Iterable[tuple[str, str]]) -> dict[str, str]:
    owners: dict[str, set[str]] = defaultdict(set)
    for name, points in names:
        owners[squash(name)].add(points)
    return {name: next(iter(points)) for name, points in owners.items() if name and len(points) == 1}


def squash(name: str) -> str:
    """Letters and digits only, in lower case and without accents."""
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", ascii_only.lower())


def read_emoji(directory: Path) -> list[Emoji]:
    """Reads emojibase's data of one language.

    Countries' flags, single letters and skin tones get no name. Neither do joined sequences: they are families, and the
    women and men among emoji that exist as persons too, which most styles draw as one of them.
    """
    shortcodes: dict[str, list[str]] = defaultdict(list)
    for file in sorted((directory / "shortcodes").glob("*.json")):
        for points, names in _read_json(file).items():
            shortcodes[normal_points(points)].extend([names] if isinstance(names, str) else names)
    emoji = []
    for raw in _read_json(directory / "data.json"):
        points = normal_points(raw["hexcode"])
        has_name = "group" in raw and JOINER not in points and not raw["label"].startswith("flag:")
        emoji.append(Emoji(points, raw["label"], tuple(dict.fromkeys(shortcodes[points])), has_name))
    return emoji


def read_icon_set(directory: Path) -> IconSet:
    """Reads the package of one Iconify set."""
    raw = _read_json(directory / "icons.json")
    listed = directory / "chars.json"
    characters = _read_json(listed) if listed.is_file() else {}
    # The format's own defaults.
    size = {"left": 0, "top": 0, "width": raw.get("width", 16), "height": raw.get("height", 16)}
    icons = {}
    for icon, details in raw["icons"].items():
        left, top, width, height = ((size | details)[key] for key in ("left", "top", "width", "height"))
        icons[icon] = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}">{details["body"]}</svg>'
        )
    return IconSet(
        icons=icons,
        characters={normal_points(points): icon for points, icon in characters.items()},
        # An alias with more than a parent is a turned or mirrored drawing.
        aliases={name: alias["parent"] for name, alias in raw.get("aliases", {}).items() if len(alias) == 1},
    )


def normal_points(points: str) -> str:
    """Code points in hexadecimal, as `Emoji` has them."""
    return "-".join(point for point in points.lower().split("-") if point != "fe0f")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
