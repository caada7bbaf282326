"""Two plots as SVG, written by hand: they need no library, and their bytes depend on the numbers alone."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

# In pixels.
PLOT_WIDTH = 850
ROW_HEIGHT = 22
LABEL_WIDTH = 300
DARK, LIGHT = "#2f6f9f", "#cdd9e5"
# Room behind the rows for a number, and for one with its interval.
NUMBER_WIDTH, INTERVAL_WIDTH = 90, 250
# A file needs it, and a page does not.
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg" '


@dataclass(frozen=True)
class Interval:
    """One row of a plot of intervals.

    Attributes:
        label: what it is, in front.
        value: marked by a dot.
        low: left end of the interval.
        high: right end.
        shown: value and interval as people write them, behind.
        scale: what the left and the right edge stand for; 0 is marked where it lies between them or on the left.
    """

    label: str
    value: float
    low: float
    high: float
    shown: str
    scale: tuple[float, float]


def bars(rows: Sequence[tuple[str, float, float]], namespace: str = "") -> str:
    """A bar for each row: its name, how much is left, which is dark, and came, which is light.

    Args:
        rows: name, left, came.
        namespace: NAMESPACE for the content of a file; nothing for what stands in a page.
    """
    largest = max((came for _, _, came in rows), default=0) or 1
    room = PLOT_WIDTH - LABEL_WIDTH - NUMBER_WIDTH
    drawn = []
    for number, (name, left, came) in enumerate(rows):
        top = number * ROW_HEIGHT
        shown = f"{left:,}" if isinstance(left, int) else f"{left:.2f}"
        for value, colour in ((came, LIGHT), (left, DARK)):
            drawn.append(_bar(LABEL_WIDTH, top + 3, room * value / largest, ROW_HEIGHT - 6, colour))
        drawn += [_label(name, top), _text(shown, LABEL_WIDTH + room * came / largest + 6, top)]
    return _document(drawn, len(rows) * ROW_HEIGHT, namespace)


def intervals(rows: Sequence[Interval]) -> str:
    """A dot on a line for each row, on the scale of that row; the content of a file."""
    room = PLOT_WIDTH - LABEL_WIDTH - INTERVAL_WIDTH
    drawn = []
    for number, row in enumerate(rows):
        top, (left, right) = number * ROW_HEIGHT, row.scale
        value, low, high, zero = (
            LABEL_WIDTH + room * (min(max(one, left), right) - left) / ((right - left) or 1)
            for one in (row.value, row.low, row.high, 0.0)
        )
        middle = top + ROW_HEIGHT / 2
        drawn.append(_bar(LABEL_WIDTH, middle - 0.5, room, 1, LIGHT))
        drawn.append(_bar(zero - 0.5, top, 1, ROW_HEIGHT, "#888"))
        drawn.append(_bar(low, middle - 2, max(high - low, 1), 4, DARK))
        drawn.append(f'<circle cx="{value:.1f}" cy="{middle:g}" r="5" fill="{DARK}"/>')
        drawn += [_label(row.label, top), _text(row.shown, LABEL_WIDTH + room + 10, top)]
    return _document(drawn, len(rows) * ROW_HEIGHT, NAMESPACE)


def _bar(left: float, top: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{left:.1f}" y="{top:g}" width="{width:.1f}" height="{height:g}" fill="{colour}"/>'


def _label(text: str, top: float) -> str:
    return f'<text x="{LABEL_WIDTH - 8}" y="{top + 16:g}" text-anchor="end">{html.escape(text)}</text>'


def _text(text: str, left: float, top: float) -> str:
    return f'<text x="{left:.1f}" y="{top + 16:g}">{html.escape(text)}</text>'


def _document(drawn: Sequence[str], height: int, namespace: str = "") -> str:
    return (
        f'<svg {namespace}viewBox="0 0 {PLOT_WIDTH} {height}" width="{PLOT_WIDTH}" height="{height}" font-size="12" '
        f'font-family="sans-serif" role="img">{"".join(drawn)}</svg>'
    )
