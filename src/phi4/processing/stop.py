"""Stop strings: where an answer ends, found across the borders of tokens."""

from collections.abc import Sequence

from phi4.errors import InputError

# Each is looked for behind every token; OpenAI's interface allows 4.
MAX_STOP_STRINGS = 64


class StopScanner:
    """Passes text through until one of the stop strings appears; holds back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises InputError for a stop string that is empty, no text or invalid Unicode, and for too many."""
        if len(stops) > MAX_STOP_STRINGS:
            raise InputError(f"there are {len(stops)} stop strings; at most {MAX_STOP_STRINGS} are looked for")
        for stop in stops:
            if not isinstance(stop, str) or not stop:
                raise InputError(f"a stop string must be text and not empty, not {stop!r}")
            if any("\ud800" <= character <= "\udfff" for character in stop):
                raise InputError(f"the stop string {stop!r} is not valid Unicode; give it as UTF-8")
        self.stops = tuple(stops)
        self.held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """Takes the next piece of text and returns what is certain to belong to the answer."""
        text = self.held + piece
        found = [position for stop in self.stops if (position := text.find(stop)) >= 0]
        if found:
            self.stopped, self.held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self.stops), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Returns what was held back when the answer ended without a stop string."""
        rest, self.held = self.held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if stop.startswith(text[-length:])), 0)
