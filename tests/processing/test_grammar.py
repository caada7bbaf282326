"""Grammars as masks: what they allow is what matches, and added tokens are no text."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.errors import InputError
from phi4.processing.grammar import Grammars
from phi4.processing.grammar_constraint import GrammarConstraint
from phi4.processing.tokenizer import Tokenizer

END, OTHER_END = 261, 256


@pytest.fixture(scope="module")
def grammars(tiny_directory: Path) -> Grammars:
    """Of the tiny tokenizer, whose tokens are single bytes."""
    return Grammars(Tokenizer.load(tiny_directory), 320, (END, OTHER_END))


def walk(make: Callable[[], GrammarConstraint], tokenizer: Tokenizer, seed: int) -> str:
    """A text of random allowed tokens; it ends where it may."""
    constraint, source, token_ids = make(), random.Random(seed), []
    while len(token_ids) < 4000:
        allowed = constraint.allowed().nonzero().flatten().tolist()
        assert not set(allowed) & (tokenizer.added.by_id.keys() - {END, OTHER_END})
        token_id = END if END in allowed else source.choice(allowed)
        if token_id == END:
            return tokenizer.decode(token_ids)
        constraint.advance(token_id)
        token_ids.append(token_id)
    raise AssertionError("the walk does not end")


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([r"(yes|no)\.?", "[a-c]{3,5}x", "[0-9]{4}-[0-9]{2}", "ä+ö"]), st.integers(0, 99))
def test_what_a_regular_expression_allows_matches_it(grammars: Grammars, pattern: str, seed: int) -> None:
    assert re.fullmatch(pattern, walk(grammars.regex(pattern), grammars.tokenizer, seed))


def test_what_a_schema_allows_is_json_of_that_shape(grammars: Grammars) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 150}, "kind": {"enum": ["cat", "dog"]}},
        "required": ["age", "kind"],
        "additionalProperties": False,
    }
    for seed in range(10):
        document = json.loads(walk(grammars.json_schema(schema), grammars.tokenizer, seed))
        assert document.keys() == {"age", "kind"}
        assert 0 <= document["age"] <= 150
        assert document["kind"] in {"cat", "dog"}


def test_any_object_is_an_object(grammars: Grammars) -> None:
    constraint = grammars.json_object()()
    for token_id in grammars.tokenizer.encode('{"a": [1, {"b": null}]}', allow_special=False):
        assert constraint.allowed()[token_id]
        constraint.advance(token_id)
    assert constraint.allowed()[END]


def test_every_end_token_is_allowed_where_the_grammar_is_satisfied_and_nowhere_else(grammars: Grammars) -> None:
    constraint = grammars.regex("a")()
    assert constraint.allowed().nonzero().flatten().tolist() == [ord("a")]
    constraint.advance(ord("a"))
    assert constraint.allowed().nonzero().flatten().tolist() == [OTHER_END, END]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda grammars: grammars.regex("(unclosed"), "unclosed group"),
        (lambda grammars: grammars.regex("(?=ahead)"), "look-around"),
        (lambda grammars: grammars.json_schema({"type": "nonsense"}), "nonsense"),
        (lambda grammars: grammars.json_schema({"type": object}), "JSON serializable"),
    ],
)
def test_a_grammar_that_cannot_be_used_is_refused(
    grammars: Grammars, make: Callable[[Grammars], object], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        make(grammars)


def test_a_token_that_was_not_allowed_is_an_error(grammars: Grammars) -> None:
    with pytest.raises(InputError, match="cannot follow its grammar"):
        grammars.regex("yes")().advance(ord("n"))
