"""Calls that are held to the functions on offer, in both dialects, and text around them that is not."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from phi4.errors import InputError
from phi4.processing.grammar import Grammars
from phi4.processing.grammar_constraint import GrammarConstraint
from phi4.processing.offered_calls import OfferedCalls
from phi4.processing.tokenizer import Tokenizer
from phi4.processing.tools import FUNCTOOLS, TOOL_CALL_CLOSER, TOOL_CALL_OPENER, ToolCall, parse_tool_calls

END = 261
PLAN: Any = {
    "name": "plan",
    "parameters": {
        "type": "object",
        "properties": {"days": {"type": "array", "items": {"$ref": "#/$defs/day"}, "minItems": 2, "maxItems": 2}},
        "required": ["days"],
        "additionalProperties": False,
        "$defs": {"day": {"enum": [1, 2]}},
    },
}
STOP: Any = {"name": 'stöp "it"', "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}
CARD: Any = {"name": "card", "parameters": {"city": {"type": "str", "description": "Where."}}}
DIALECTS = pytest.mark.parametrize(("opener", "closer"), [(TOOL_CALL_OPENER, TOOL_CALL_CLOSER), (FUNCTOOLS, "")])


@pytest.fixture(scope="module")
def grammars(tiny_directory: Path) -> Grammars:
    """Of the tiny tokenizer, whose tokens are single bytes."""
    return Grammars(Tokenizer.load(tiny_directory), 320, (END, 256))


def write(grammars: Grammars, constraint: GrammarConstraint | OfferedCalls, text: str) -> None:
    """Advances by a text, every token of which must be allowed."""
    for token_id in grammars.tokenizer.encode(text, allow_special=True):
        allowed = constraint.allowed()
        assert allowed is None or allowed[token_id], text
        constraint.advance(token_id)


def draw(grammars: Grammars, constraint: GrammarConstraint | OfferedCalls, seed: int) -> str:
    """Writes random allowed tokens until an answer may end."""
    source, token_ids = random.Random(seed), []
    while (allowed := constraint.allowed()) is not None and not allowed[END]:
        token_ids.append(source.choice(allowed.nonzero().flatten().tolist()))
        constraint.advance(token_ids[-1])
        assert len(token_ids) < 4000
    return grammars.tokenizer.decode(token_ids, skip_special=False)


def check(calls: tuple[ToolCall, ...]) -> None:
    assert calls
    for call in calls:
        if call.name == PLAN["name"]:
            assert call.arguments.keys() == {"days"}
            assert set(call.arguments["days"]) <= {1, 2}
            assert len(call.arguments["days"]) == 2
        else:
            assert call == ToolCall(STOP["name"], {})


@DIALECTS
def test_demanded_calls_are_well_formed_calls_of_functions_on_offer(
    grammars: Grammars, opener: str, closer: str
) -> None:
    demanded = grammars.demanded_calls([PLAN, STOP], opener)
    names = set()
    for seed in range(12):
        text, calls = parse_tool_calls(opener + (written := draw(grammars, demanded(), seed)))
        assert text == ""
        assert written.endswith(closer or "]")
        check(calls)
        names |= {call.name for call in calls}
    assert names == {PLAN["name"], STOP["name"]}
    json.loads(written.removesuffix(closer))


def test_a_single_call_is_a_single_call(grammars: Grammars) -> None:
    single = grammars.demanded_calls([STOP], FUNCTOOLS, max_calls=1)
    assert {len(json.loads(draw(grammars, single(), seed))) for seed in range(12)} == {1}


@DIALECTS
def test_text_is_free_and_calls_in_it_are_held_wherever_they_begin(
    grammars: Grammars, opener: str, closer: str
) -> None:
    offered = grammars.offered_calls([PLAN, STOP])
    for seed in range(8):
        constraint = offered()
        write(grammars, constraint, "Let me sée [1]: {} ")
        assert constraint.allowed() is None
        write(grammars, constraint, opener + " [" if opener == FUNCTOOLS else opener)
        first = draw(grammars, constraint, seed)
        assert constraint.allowed() is None
        write(grammars, constraint, " and " + opener + "[")
        text = f"{opener} [{first}" if opener == FUNCTOOLS else opener + first
        text += " and " + opener + "[" + draw(grammars, constraint, seed + 100)
        kept, calls = parse_tool_calls(text)
        assert kept == " and "
        check(calls)


@DIALECTS
def test_the_usual_way_to_write_calls_is_allowed(grammars: Grammars, opener: str, closer: str) -> None:
    calls = json.dumps([{"name": "plan", "arguments": {"days": [1, 2]}}, {"name": STOP["name"], "arguments": {}}])
    calls = calls.replace(json.dumps(STOP["name"]), json.dumps(STOP["name"], ensure_ascii=False))
    constraint = grammars.offered_calls([PLAN, STOP])()
    write(grammars, constraint, "Well. " + opener + calls + closer + "Done.")
    assert constraint.allowed() is None


@pytest.mark.parametrize(
    ("before", "forbidden"),
    [
        (TOOL_CALL_OPENER, "x"),
        (TOOL_CALL_OPENER, "<|end|>"),
        (TOOL_CALL_OPENER + '[{"name": "', "f"),
        (TOOL_CALL_OPENER + '[{"name": "plan", "arguments": {"days": [1, ', "3"),
        (TOOL_CALL_OPENER + '[{"name": "plan", "arguments": {"days": [1, 2]}}]', "<|end|>"),
        ("functools[", "a"),
        ("functools  \n[", "a"),
        ('functools[{"name": "plan", "arguments": {', "}"),
    ],
)
def test_what_is_no_call_of_a_function_on_offer_is_forbidden(grammars: Grammars, before: str, forbidden: str) -> None:
    constraint = grammars.offered_calls([PLAN, STOP])()
    write(grammars, constraint, before)
    (token_id,) = grammars.tokenizer.encode(forbidden, allow_special=True)
    allowed = constraint.allowed()
    assert allowed is not None
    assert not allowed[token_id]


@pytest.mark.parametrize("text", ["functools.reduce[", "myfunctools[x]", "functools " + " " * 99 + "are [x]", "[x]"])
def test_a_word_that_calls_nothing_is_a_word(grammars: Grammars, text: str) -> None:
    constraint = grammars.offered_calls([PLAN])()
    write(grammars, constraint, text)
    assert constraint.allowed() is None


def test_behind_the_word_all_but_a_bracket_is_free(grammars: Grammars) -> None:
    constraint = grammars.offered_calls([PLAN])()
    write(grammars, constraint, "functools")
    allowed = constraint.allowed()
    assert allowed is not None
    assert bool(allowed[END])
    assert int((~allowed).sum()) == 0  # single bytes: the bracket itself may begin a list
    constraint.advance(ord("["))
    allowed = constraint.allowed()
    assert allowed is not None
    assert set(torch.nonzero(allowed).flatten().tolist()) == set(b" \t\r\n{")


def test_flat_parameters_of_the_model_card_allow_any_object(grammars: Grammars) -> None:
    call = '[{"name": "card", "arguments": {"city": "Rome", "more": [1]}}]'
    write(grammars, grammars.demanded_calls([CARD], FUNCTOOLS)(), call)


def test_parameters_that_cannot_be_enforced_are_refused_where_a_call_is_demanded_and_free_otherwise(
    grammars: Grammars,
) -> None:
    odd = {"name": "odd", "parameters": {"type": "object", "properties": {"x": {"type": "nonsense"}}}}
    with pytest.raises(InputError, match="parameters of the function 'odd' cannot be used"):
        grammars.demanded_calls([PLAN, odd], FUNCTOOLS)
    constraint = grammars.offered_calls([PLAN, odd])()
    write(grammars, constraint, 'functools[{"name": "odd", "arguments": {"x": 1}}]')
    assert constraint.allowed() is None
