"""Tool calls as they are written: the same as in the whole answer, however it is cut, and no half of an opener."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4.processing.tools import ToolCall, format_tool_calls, parse_tool_calls
from phi4.server.tool_stream import CallArguments, CallStart, Piece, ToolCallStream

NESTED = {
    "where": [{"city": "Paris", "at": [48.85, 2.35]}, []],
    "say": 'a } ] "b" \\ <|/tool_call|>',
    "deep": {"x": {}},
}
WEATHER = json.dumps({"name": "get_weather", "arguments": NESTED})
TIME = '{"name": "now", "arguments": {}}'

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.lists(
    st.builds(ToolCall, st.text(), st.dictionaries(st.text(), JSON_VALUES, max_size=3)), min_size=1, max_size=3
)
FRAGMENTS = [*'{}[]",: a\\', "<|tool_call|>", "<|/tool_call|>", "functools", "<|tool", "func", TIME, WEATHER]


def stream(pieces: list[str]) -> list[Piece]:
    calls = ToolCallStream()
    return [piece for text in pieces for piece in calls.feed(text)] + list(calls.flush())


def joined(pieces: list[Piece]) -> tuple[str, list[tuple[str, str]]]:
    """The text, and name and arguments of each call."""
    names = [piece.name for piece in pieces if isinstance(piece, CallStart)]
    arguments = [
        "".join(piece.text for piece in pieces if isinstance(piece, CallArguments) and piece.index == index)
        for index in range(len(names))
    ]
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    return text, list(zip(names, arguments, strict=True))


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


def as_calls(calls: list[tuple[str, str]]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(name, json.loads(arguments)) for name, arguments in calls)


WELL_FORMED = [
    f"<|tool_call|>[{WEATHER}]<|/tool_call|>",
    f"Let me see.<|tool_call|>[{WEATHER}, {TIME}]<|/tool_call|>Done.",
    f"<|tool_call|>[{WEATHER}]",
    f"<|tool_call|>{WEATHER} <|/tool_call|>",
    f"<|tool_call|>{WEATHER}\n{TIME}<|/tool_call|>",
    f"<|tool_call|>{WEATHER}, {TIME}",
    f"<|tool_call|>{WEATHER}<|/tool_call|> <|tool_call|>{TIME}<|/tool_call|>",
    f"<|tool_call|>{WEATHER}<|tool_call|>{TIME}",
    f"functools[{WEATHER}, {TIME}]",
    f"call: functools [ {WEATHER} , {TIME} ] then",
    f"xfunctools[{TIME}] is text",
    '<|tool_call|>[{"name": "now", "arguments": "{}"}]<|/tool_call|>',
    '<|tool_call|>[{"arguments": {"a": [1]}, "name": "now"}] ',
    '<|tool_call|>[{"type": "function", "function": ' + TIME + "}]",
    '<|tool_call|>[{"name": "now", "arguments": {}, "id": {"x": ["}"]}}]<|/tool_call|>.',
    "The capital is Paris.",
    "from functools import cache",
    "functools[0] is a list, functools[",
    "<|tool_call|>[{'name': 'now'}]<|/tool_call|> is Python",
    "<|tool_call|>[]<|/tool_call|>",
    '<|tool_call|>[{"name": "now", "arguments": [1]}]<|/tool_call|>',
    "<|tool_call|>",
    "a <|tool_ca",
    "<|tool_call|>" + "[" * 2000,
]


@pytest.mark.parametrize("text", WELL_FORMED)
def test_one_character_at_a_time_gives_what_the_whole_answer_gives(text: str) -> None:
    for pieces in ([text], list(text)):
        found, calls = joined(stream(pieces))
        assert (found, as_calls(calls)) == parse_tool_calls(text)


@given(
    calls=CALLS,
    dialect=st.sampled_from(["<|tool_call|>{}<|/tool_call|>!", "<|tool_call|>{}", "functools{}"]),
    places=st.lists(st.integers(0)),
)
def test_any_calls_cut_anywhere_are_read_back(calls: list[ToolCall], dialect: str, places: list[int]) -> None:
    text = "A " + dialect.replace("{}", format_tool_calls(calls))
    found, streamed = joined(stream(cut(text, places)))
    assert (found, as_calls(streamed)) == parse_tool_calls(text) == ("A " + "!" * text.endswith("!"), tuple(calls))


@given(text=st.lists(st.sampled_from(FRAGMENTS)).map("".join), places=st.lists(st.integers(0)))
def test_how_an_answer_is_cut_never_matters(text: str, places: list[int]) -> None:
    assert joined(stream(cut(text, places))) == joined(stream([text]))


@given(text=st.lists(st.sampled_from(FRAGMENTS)).map("".join))
def test_what_holds_no_call_stays_text(text: str) -> None:
    found, calls = joined(stream([text]))
    assert calls or found == text


def test_no_part_of_an_opener_is_ever_text() -> None:
    calls = ToolCallStream()
    seen: list[Any] = []
    for character in f"Look: <|tool_call|>[{WEATHER}]<|/tool_call|>":
        seen.extend(calls.feed(character))
    assert "".join(piece for piece in seen if isinstance(piece, str)) == "Look: "


def test_text_is_held_back_no_longer_than_needed() -> None:
    calls = ToolCallStream()
    assert list(calls.feed("a < b and <|to")) == ["a < b and "]
    assert list(calls.feed("day")) == ["<|today"]


def test_nested_arguments_come_while_they_are_written() -> None:
    calls = ToolCallStream()
    list(calls.feed('<|tool_call|>[{"name": "plan", "arguments": '))
    assert list(calls.feed('{"days": [[1, ')) == [CallStart(0, "plan"), CallArguments(0, '{"days": [[1, ')]
    assert list(calls.feed('{"a": "]}"}')) == [CallArguments(0, '{"a": "]}"}')]
    assert list(calls.feed("]]}}]<|/tool_call|>")) == [CallArguments(0, "]]}")]


def test_a_call_that_breaks_off_stands_as_far_as_it_came() -> None:
    text, calls = joined(stream(['<|tool_call|>[{"name": "f", "arguments": {"a": [1, 2<|/tool_call|> sorry']))
    assert (text, calls) == (" sorry", [("f", '{"a": [1, 2')])
