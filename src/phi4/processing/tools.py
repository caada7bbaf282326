"""Functions that a model may call: how they are offered, and how calls are found in what it wrote."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phi4.errors import InputError

TOOL_CALL_OPENER = "<|tool_call|>"
TOOL_CALL_CLOSER = "<|/tool_call|>"
FUNCTOOLS = "functools"

# Both dialects seen in the wild (facts sheet 9.1): the release's tokens, and the word that Phi-3.5 models write.
CALL_BEGINS = re.compile(re.escape(TOOL_CALL_OPENER) + rf"|\b{FUNCTOOLS}(?=\s*\[)")
CALLS_END = re.compile(r"\s*" + re.escape(TOOL_CALL_CLOSER))
_BETWEEN_CALLS = re.compile(r"[\s,;]*(?=[\[{])")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class ToolCall:
    """One call that a model asks for.

    Attributes:
        name: of the function.
        arguments: by parameter name.
    """

    name: str
    arguments: Mapping[str, Any]


def read_tools(raw: Any) -> list[dict[str, Any]]:
    """Checks a list of tools and brings each to the model card's shape: name, description, parameters.

    OpenAI's shape, `{"type": "function", "function": {...}}`, is unpacked; what stands in a function is kept as JSON
    has it, in which all keys are strings.

    Raises:
        InputError: it is no list of named functions, or holds what JSON does not know.
    """
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise InputError(f"tools must be a list of functions, not a {type(raw).__name__}")
    functions = []
    for number, tool in enumerate(raw, start=1):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else tool
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InputError(f'tool {number} is not an object with a "name": {tool!r}')
        functions.append(dict(function))
    try:
        as_json: list[dict[str, Any]] = json.loads(json.dumps(functions))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the tools cannot be written as JSON: {error}") from error
    return as_json


def read_tool_call(raw: Any) -> ToolCall | None:
    """Reads one call, its arguments an object or the JSON text of one; None if it is no call."""
    if not isinstance(raw, Mapping):
        return None
    function = raw.get("function", raw)
    if not isinstance(function, Mapping):
        return None
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not isinstance(function.get("name"), str) or not isinstance(arguments, Mapping):
        return None
    return ToolCall(name=function["name"], arguments=arguments)


def format_tool_calls(calls: Sequence[ToolCall]) -> str:
    """Writes calls as the JSON list that stands between the tool call tokens, or behind `functools`."""
    return json.dumps([{"name": call.name, "arguments": dict(call.arguments)} for call in calls], ensure_ascii=False)


def parse_tool_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Finds the calls in a model's answer.

    Lenient where models are sloppy: the closing token may be missing, a single call need not stand in a list, and
    several calls may follow each other. What is not valid JSON of calls stays text.

    Returns:
        The text around the calls, and the calls in order.
    """
    kept: list[str] = []
    calls: list[ToolCall] = []
    position = search_from = 0
    while opener := CALL_BEGINS.search(text, search_from):
        found, end = _read_calls(text, opener.end())
        if found:
            kept.append(text[position : opener.start()])
            calls.extend(found)
            position = end
        search_from = max(opener.end(), end)
    return "".join([*kept, text[position:]]), tuple(calls)


def _read_calls(text: str, start: int) -> tuple[list[ToolCall], int]:
    """Reads the calls at `start`, if any, and says where they end, closing token included."""
    calls: list[ToolCall] = []
    end = start
    while gap := _BETWEEN_CALLS.match(text, end):
        try:
            value, value_end = _DECODER.raw_decode(text, gap.end())
        except (ValueError, RecursionError):
            break
        group = [read_tool_call(member) for member in (value if isinstance(value, list) else [value])]
        read = [call for call in group if call is not None]
        if not read or len(read) < len(group):
            break
        calls.extend(read)
        end = value_end
    closer = CALLS_END.match(text, end)
    return calls, closer.end() if calls and closer else end
