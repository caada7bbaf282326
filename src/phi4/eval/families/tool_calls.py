"""Function calls in the Berkeley leaderboard's layout: a file of questions, one of answers in a folder beside it."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from phi4.engine.sampling import Sampling
from phi4.errors import InputError
from phi4.eval.rows import SourceRow, read_rows
from phi4.eval.task import Generate, Item, Metric, Reply, Rows, Task
from phi4.processing.messages import read_messages
from phi4.processing.tools import ToolCall, parse_tool_calls, read_tools

ANSWERS = "possible_answer"
# The leaderboard's own list: "April 1, 2024" is "april 1 2024", but "+" is not "-" and "C++" not "C#".
UNCOUNTED = re.compile(r"[ ,./\-_*^]")
# The leaderboard's categories whose answers are calls to the functions on offer, in one turn.
CATEGORIES = ("simple", "multiple", "parallel", "parallel_multiple")


def _is_right(item: Item, reply: Reply) -> Sequence[float]:
    calls = parse_tool_calls(reply.texts[0])[1]
    return (float(matches(calls, item.details["calls"])), 1.0)


def matches(calls: Sequence[ToolCall], expected: Sequence[Mapping[str, Any]]) -> bool:
    """Whether calls are the expected ones, in any order.

    Args:
        calls: of the model.
        expected: for each call its name and, by argument, the values that are right; "" among them means that the
            argument may be left out.
    """
    left = list(expected)
    for call in calls:
        fitting = next((one for one in left if _fits(call, one)), None)
        if fitting is None:
            return False
        left.remove(fitting)
    return not left


def _fits(call: ToolCall, expected: Mapping[str, Any]) -> bool:
    ((name, arguments),) = expected.items()
    if call.name != name or call.arguments.keys() - arguments.keys():
        return False
    return _are_right(call.arguments, arguments)


def _are_right(given: Mapping[str, Any], right: Mapping[str, Sequence[Any]]) -> bool:
    """Whether each argument has one of its right values, or is missing where it may be."""
    return all(
        any(_is_same(given[name], value) for value in values) if name in given else "" in values
        for name, values in right.items()
    )


def _is_same(given: Any, right: Any) -> bool:
    """Case, spaces and some signs of texts do not count, as on the leaderboard, nor whether a number is whole."""
    if isinstance(given, str) and isinstance(right, str):
        return _letters(given) == _letters(right)
    if isinstance(given, list) and isinstance(right, list):
        return len(given) == len(right) and all(map(_is_same, given, right))
    if isinstance(given, dict) and isinstance(right, dict):
        # Inside an object, too, every value is a list of right ones.
        return given.keys() <= right.keys() and _are_right(given, right)
    return isinstance(given, bool) == isinstance(right, bool) and bool(given == right)


def _letters(text: str) -> str:
    return UNCOUNTED.sub("", text).lower().replace("'", '"')


def _read(row: SourceRow) -> Item:
    turns = row.value("question")
    if not isinstance(turns, list) or len(turns) != 1:
        raise row.error("question must be a list with one turn, itself a list of messages")
    try:
        messages, tools = read_messages(turns[0]), read_tools(row.value("function"))
    except InputError as error:
        raise row.error(str(error)) from error
    if any(message.media for message in messages):
        raise row.error("the question has media; it must be text")
    path = row.file.parent / ANSWERS / row.file.name
    name, answers = row.text("id"), _answers(path)
    calls = answers.get(name)
    if not isinstance(calls, list) or not all(isinstance(call, dict) and len(call) == 1 for call in calls):
        raise row.error(f"{path} has no ground_truth for {name}; put the answers there")
    return Item(name, messages, tools=tuple(tools), details={"calls": calls})


@lru_cache(maxsize=4)
def _answers(path: Path) -> Mapping[str, Any]:
    return {row.text("id"): row.value("ground_truth") for row in read_rows(path)}


TASKS = tuple(
    Task(
        f"bfcl_{category}",
        Generate(Sampling(max_tokens=512)),
        (Metric("right calls", _is_right),),
        Rows(
            "id, question, function, and ground_truth in a file of the same name in possible_answer",
            _read,
            "gorilla-llm/Berkeley-Function-Calling-Leaderboard",
            # The fourth version calls the first category simple_python.
            f"BFCL_v[0-9]_{category}.json|BFCL_v[0-9]_{category}_python.json",
            beside=f"{ANSWERS}/BFCL_v[0-9]_{category}.json",
        ),
    )
    for category in CATEGORIES
)
