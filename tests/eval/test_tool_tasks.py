"""Function calls in the leaderboard's layout, and when they are right."""

import json
from pathlib import Path
from typing import Any

import pytest

from phi4.assistant import Assistant
from phi4.errors import DataError
from phi4.eval.ask import ask_items
from phi4.eval.items import RowItems
from phi4.eval.registry import TASKS
from phi4.eval.task import Item, Reply

QUESTION = {
    "id": "simple_0",
    "question": [[{"role": "user", "content": "How warm is Paris?"}]],
    "function": [
        {
            "name": "weather",
            "description": "Weather of a city.",
            "parameters": {"type": "dict", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
    ],
}
ANSWER = {"id": "simple_0", "ground_truth": [{"weather": {"city": ["Paris", "Paris, France"], "unit": ["C", ""]}}]}


def item_of(folder: Path, question: Any = QUESTION, answer: Any = ANSWER, file: str = "BFCL_v3_simple.json") -> Item:
    path = folder / "bfcl_simple" / file
    (path.parent / "possible_answer").mkdir(parents=True)
    path.write_text(json.dumps(question) + "\n")
    (path.parent / "possible_answer" / path.name).write_text(json.dumps(answer) + "\n")
    (item,) = RowItems.open(TASKS["bfcl_simple"], folder).select([0])
    return item


def is_right(item: Item, *calls: tuple[str, Any]) -> bool:
    text = json.dumps([{"name": name, "arguments": arguments} for name, arguments in calls])
    reply = Reply(texts=(f"<|tool_call|>{text}<|/tool_call|>",))
    return TASKS["bfcl_simple"].metrics[0].statistics(item, reply)[0] == 1.0


def test_a_call_is_right_with_any_of_the_right_values(tmp_path: Path) -> None:
    item = item_of(tmp_path)
    assert is_right(item, ("weather", {"city": "paris france"}))
    assert is_right(item, ("weather", {"city": "Paris", "unit": "C"}))
    assert not is_right(item, ("weather", {"city": "Rome"}))
    assert not is_right(item, ("weather", {"unit": "C"}))
    assert not is_right(item, ("weather", {"city": "Paris", "day": "today"}))
    assert not is_right(item, ("climate", {"city": "Paris"}))
    assert not is_right(item, ("weather", {"city": "Paris"}), ("weather", {"city": "Paris"}))
    assert not is_right(item)


def test_the_files_of_the_fourth_version_have_another_name(tmp_path: Path) -> None:
    item = item_of(tmp_path, file="BFCL_v4_simple_python.json")
    assert is_right(item, ("weather", {"city": "Paris"}))


def test_values_of_every_kind_are_compared(tmp_path: Path) -> None:
    call = {"f": {"n": [2], "flag": [True], "list": [["a", 1]], "object": [{"x": [1, 2], "y": [""]}]}}
    item = item_of(tmp_path, answer={"id": "simple_0", "ground_truth": [call]})
    right = {"n": 2.0, "flag": True, "list": ["A", 1], "object": {"x": 2}}
    assert is_right(item, ("f", right))
    for wrong in ({"n": True}, {"flag": 1}, {"list": ["a"]}, {"object": {"x": 3}}, {"object": {"z": 1}}):
        assert not is_right(item, ("f", {**right, **wrong}))


def test_the_functions_are_offered_to_the_model(tmp_path: Path, assistant: Assistant) -> None:
    item = item_of(tmp_path)
    offered = assistant.processor.prepare(item.messages, item.tools)
    assert "Weather of a city." in assistant.processor.tokenizer.decode(offered.token_ids)
    (reply,) = ask_items(assistant, TASKS["bfcl_simple"].ask, [item])
    assert len(reply.texts) == 1


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        ({**QUESTION, "question": []}, ANSWER, "one turn"),
        ({**QUESTION, "function": [{"description": "x"}]}, ANSWER, 'not an object with a "name"'),
        (QUESTION, {**ANSWER, "id": "other"}, "has no ground_truth for simple_0"),
        (QUESTION, {**ANSWER, "ground_truth": ["weather"]}, "has no ground_truth for simple_0"),
    ],
)
def test_a_row_of_another_layout_is_named(question: Any, answer: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        item_of(tmp_path, question, answer)


def test_signs_that_the_leaderboard_counts_count(tmp_path: Path) -> None:
    call = {"f": {"formula": ["3x + 1"], "language": ["C++"]}}
    item = item_of(tmp_path, answer={"id": "simple_0", "ground_truth": [call]})
    assert is_right(item, ("f", {"formula": "3x+1", "language": "c++"}))
    assert not is_right(item, ("f", {"formula": "3x - 1", "language": "C++"}))
    assert not is_right(item, ("f", {"formula": "3x + 1", "language": "C#"}))
