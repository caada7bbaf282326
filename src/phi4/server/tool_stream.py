"""Tool calls in an answer that is still being written: text and calls are told apart as the characters come.

`processing/tools.py` reads calls in whole answers, and this agrees with it on every answer whose calls are valid JSON.
A call of the usual shape, name before arguments, is handed out while its arguments are written, nested ones too. Of any
other shape it is handed out when it is complete. If arguments that were handed out break off or turn out to be no JSON,
the call stands as far as it came: what a client was sent cannot be taken back.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from phi4.processing.tools import (
    CALL_BEGINS,
    CALLS_END,
    FUNCTOOLS,
    TOOL_CALL_CLOSER,
    TOOL_CALL_OPENER,
    ToolCall,
    read_tool_call,
)


@dataclass(frozen=True)
class CallStart:
    """A call begins; it is the `index`-th of the answer."""

    index: int
    name: str


@dataclass(frozen=True)
class CallArguments:
    """More of the JSON text of the arguments of the `index`-th call."""

    index: int
    text: str


Piece = str | CallStart | CallArguments


def _beginnings(text: str) -> str:
    """A pattern for every beginning of a text but the whole, longest first."""
    return "|".join(re.escape(text[:length]) for length in range(len(text) - 1, 0, -1))


# The end of a text that may become an opener, and a rest that may become the first call, the next one, or a closer.
_MAYBE_OPENER = re.compile(rf"(?:{_beginnings(TOOL_CALL_OPENER)}|\b(?:{FUNCTOOLS}\s*|{_beginnings(FUNCTOOLS)}))\Z")
_MAYBE_GROUP = re.compile(r"[\s,;]*(?:\[\s*)?\Z")
_MAYBE_NEXT_IN_LIST = re.compile(r"\s*(?:,\s*)?\Z")
_MAYBE_CLOSER = re.compile(rf"\s*(?:{_beginnings(TOOL_CALL_CLOSER)})?\Z")
_GROUP = re.compile(r"[\s,;]*(?:\[\s*)?(?=\{)")
_NEXT_IN_LIST = re.compile(r"\s*,\s*(?=\{)")
_LIST_END = re.compile(r"\s*\]")
_USUAL_HEAD = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')
_DECODER = json.JSONDecoder()


class _Brackets:
    """Finds where a JSON value ends by its brackets, however the value is cut into pieces."""

    _IN_STRING = re.compile(r'(?:[^"\\]|\\.)*', re.DOTALL)
    _OUTSIDE = re.compile(r'[^"\[\]{}<]*')

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.in_string = False

    def read(self, text: str) -> tuple[int, bool]:
        """Goes on in a text.

        Returns:
            How much of the text was read, and whether the value ended there. A `<` outside of strings ends it too: that
            is no JSON, but may be a closing token.
        """
        at = 0
        while True:
            at = (self._IN_STRING if self.in_string else self._OUTSIDE).match(text, at).end()  # type: ignore[union-attr]
            if at == len(text) or (self.in_string and text[at] == "\\"):
                return at, False
            if text[at] == "<":
                return at, True
            if text[at] == '"':
                self.in_string = not self.in_string
            else:
                self.depth += 1 if text[at] in "[{" else -1
            at += 1
            if self.depth == 0 and not self.in_string:
                return at, True


class ToolCallStream:
    """Takes an answer in pieces of any size, and yields text and calls as soon as they are certain."""

    def __init__(self) -> None:
        self.num_calls = 0
        self._mode: Literal["text", "calls", "arguments", "rest of call"] = "text"
        self._held = ""
        self._before = ""  # the character in front of what is held: it says whether a word begins there
        self._opener = ""  # the opener of calls of which none was read yet: it may turn out to be text
        self._in_list = False
        self._brackets = _Brackets(0)

    def feed(self, piece: str) -> Iterator[Piece]:
        """Takes the next piece of the answer."""
        self._held += piece
        return self._advance(is_last=False)

    def flush(self) -> Iterator[Piece]:
        """Ends the answer."""
        return self._advance(is_last=True)

    def _advance(self, is_last: bool) -> Iterator[Piece]:
        steps = {
            "text": self._read_text,
            "calls": self._read_call,
            "arguments": self._read_arguments,
            "rest of call": self._read_rest_of_call,
        }
        # A step says None when it can do nothing before more text comes.
        while (pieces := steps[self._mode](is_last)) is not None:
            yield from pieces

    def _read_text(self, is_last: bool) -> list[Piece] | None:
        context = self._before + self._held
        begin = len(self._before)
        if opener := CALL_BEGINS.search(context, begin):
            self._mode, self._opener, self._in_list = "calls", opener[0], False
            text = self._take(opener.start() - begin, then_drop=len(opener[0]))
            return [text] if text else []
        maybe = None if is_last else _MAYBE_OPENER.search(context, begin)
        certain = maybe.start() - begin if maybe else len(self._held)
        return [self._take(certain)] if certain else None

    def _read_call(self, is_last: bool) -> list[Piece] | None:
        if self._in_list and (list_end := _LIST_END.match(self._held)):
            self._take(list_end.end())
            self._in_list = False
            return []
        pattern, maybe = (_NEXT_IN_LIST, _MAYBE_NEXT_IN_LIST) if self._in_list else (_GROUP, _MAYBE_GROUP)
        place = pattern.match(self._held)
        if place is None:
            undecided = maybe.match(self._held) or (not self._opener and _MAYBE_CLOSER.match(self._held))
            return None if undecided and not is_last else self._end_calls()
        in_list = self._in_list or "[" in place[0]
        if (head := _USUAL_HEAD.match(self._held, place.end())) and (name := _read_string(head[1])) is not None:
            self._take(head.end())
            self._mode, self._opener, self._in_list, self._brackets = "arguments", "", in_list, _Brackets(0)
            return [self._start(name)]
        call, end = _read_complete(self._held, place.end())
        if call is None:
            return None if end is None and not is_last else self._end_calls()
        self._take(end or 0)
        self._opener, self._in_list = "", in_list
        return [self._start(call.name), CallArguments(self.num_calls - 1, json.dumps(dict(call.arguments)))]

    def _read_arguments(self, is_last: bool) -> list[Piece] | None:
        length, ended = self._brackets.read(self._held)
        if is_last and not ended:
            length = len(self._held)
        if ended:
            self._mode, self._brackets = "rest of call", _Brackets(1)
        if not length:
            return [] if ended else None
        return [CallArguments(self.num_calls - 1, self._take(length))]

    def _read_rest_of_call(self, is_last: bool) -> list[Piece] | None:
        length, ended = self._brackets.read(self._held)
        self._take(length)
        if not ended:
            return None
        self._mode = "calls"
        return []

    def _end_calls(self) -> list[Piece]:
        """Goes back to text. An opener without any call was text itself; a closer behind calls is none."""
        opener, self._opener, self._mode = self._opener, "", "text"
        if opener:
            return [opener]
        if closer := CALLS_END.match(self._held):
            self._take(closer.end())
        return []

    def _start(self, name: str) -> CallStart:
        self.num_calls += 1
        return CallStart(self.num_calls - 1, name)

    def _take(self, length: int, then_drop: int = 0) -> str:
        """Takes the beginning off what is held."""
        taken = self._held[:length]
        gone = length + then_drop
        self._before = self._held[gone - 1 : gone] or self._before
        self._held = self._held[gone:]
        return taken


def _read_string(text: str) -> str | None:
    """Reads the JSON text of a string; None if it is not valid."""
    try:
        string: str = json.loads(text)
    except ValueError:
        return None
    return string


def _read_complete(text: str, start: int) -> tuple[ToolCall | None, int | None]:
    """Reads a call that is there as a whole: the call or None, and where it ends or None if it has not ended yet."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        length, ended = _Brackets(0).read(text[start:])
        return None, start + length if ended else None
    return read_tool_call(value), end
