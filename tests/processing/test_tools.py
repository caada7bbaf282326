"""Calls in a model's answer, in both dialects and as sloppy as models are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4.errors import InputError
from phi4.processing.tools import ToolCall, format_tool_calls, parse_tool_calls, read_tools

WEATHER = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
TIME = '{"name": "now", "arguments": {}}'
WEATHER_CALL = ToolCall("get_weather", {"city": "Paris"})
TIME_CALL = ToolCall("now", {})

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.lists(
    st.builds(ToolCall, st.text(), st.dictionaries(st.text(), JSON_VALUES, max_size=3)), min_size=1, max_size=3
)


@pytest.mark.parametrize(
    ("text", "remaining", "calls"),
    [
        (f"<|tool_call|>[{WEATHER}]<|/tool_call|>", "", [WEATHER_CALL]),
        (
            f"Let me see.<|tool_call|>[{WEATHER}, {TIME}]<|/tool_call|>Done.",
            "Let me see.Done.",
            [WEATHER_CALL, TIME_CALL],
        ),
        (f"<|tool_call|>[{WEATHER}]", "", [WEATHER_CALL]),
        (f"<|tool_call|>{WEATHER}<|/tool_call|>", "", [WEATHER_CALL]),
        (f"<|tool_call|>{WEATHER}\n{TIME}<|/tool_call|>", "", [WEATHER_CALL, TIME_CALL]),
        (f"<|tool_call|>{WEATHER}, {TIME}", "", [WEATHER_CALL, TIME_CALL]),
        (f"<|tool_call|>{WEATHER}<|/tool_call|><|tool_call|>{TIME}<|/tool_call|>", "", [WEATHER_CALL, TIME_CALL]),
        (f"<|tool_call|>{WEATHER}<|tool_call|>{TIME}", "", [WEATHER_CALL, TIME_CALL]),
        (f"functools[{WEATHER}, {TIME}]", "", [WEATHER_CALL, TIME_CALL]),
        (f"functools [{WEATHER}] then", " then", [WEATHER_CALL]),
        ('<|tool_call|>[{"name": "now", "arguments": "{}"}]<|/tool_call|>', "", [TIME_CALL]),
        ('<|tool_call|>[{"type": "function", "function": ' + TIME + "}]", "", [TIME_CALL]),
    ],
)
def test_calls_are_found(text: str, remaining: str, calls: list[ToolCall]) -> None:
    assert parse_tool_calls(text) == (remaining, tuple(calls))


@pytest.mark.parametrize(
    "text",
    [
        "The capital is Paris.",
        "from functools import cache",
        "functools[0] is a list, functools[",
        "<|tool_call|>[{'name': 'now'}]<|/tool_call|>",
        '<|tool_call|>[{"name": "now", "arguments": {}<|/tool_call|>',
        '<|tool_call|>[{"name": "now", "arguments": [1]}]<|/tool_call|>',
        '<|tool_call|>[{"arguments": {}}]<|/tool_call|>',
        f"<|tool_call|>[{TIME}, 3]<|/tool_call|>",
        "<|tool_call|>[]<|/tool_call|>",
        "<|tool_call|>",
        "<|tool_call|>" + "[" * 200_000,
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert parse_tool_calls(text) == (text, ())


@given(calls=CALLS, dialect=st.sampled_from(["<|tool_call|>{}<|/tool_call|>", "<|tool_call|>{}", "functools{}"]))
def test_what_is_written_is_read_back(calls: list[ToolCall], dialect: str) -> None:
    assert parse_tool_calls("A " + dialect.replace("{}", format_tool_calls(calls))) == ("A ", tuple(calls))


@given(
    text=st.lists(st.sampled_from([*'{}[]",: a', "<|tool_call|>", "<|/tool_call|>", "functools", TIME])).map("".join)
)
def test_any_text_can_be_searched(text: str) -> None:
    remaining, calls = parse_tool_calls(text)
    assert calls or remaining == text


def test_both_shapes_of_tools_are_read() -> None:
    tool = {"name": "now", "description": "Time.", "parameters": {"zone": {"type": "str"}}}
    assert read_tools([tool, {"type": "function", "function": tool}]) == [tool, tool]
    assert json.loads(json.dumps(read_tools([tool]))) == [tool]


def test_keys_of_tools_become_strings_as_in_json() -> None:
    assert read_tools([{"name": "f", 1: {None: (True,)}}]) == [{"name": "f", "1": {"null": [True]}}]


@pytest.mark.parametrize(
    "raw", [{"name": "now"}, "now", 3, ["now"], [{}], [{"function": 3}], [{"name": 3}], [{"name": "f", "x": {1}}]]
)
def test_malformed_tools_are_refused(raw: Any) -> None:
    with pytest.raises(InputError, match="tool"):
        read_tools(raw)
