"""Grammars that an answer can be held to: JSON schemas, regular expressions and calls of functions."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import llguidance
import torch

from phi4.errors import InputError
from phi4.processing.grammar_constraint import GrammarConstraint
from phi4.processing.offered_calls import OfferedCalls, find_list_beginnings
from phi4.processing.tokenizer import Tokenizer
from phi4.processing.tools import TOOL_CALL_CLOSER, TOOL_CALL_OPENER

# Between the parts of a call; a model that likes white space must not be able to go on with it for ever.
_MAX_WHITE_SPACE = 16


@dataclass(frozen=True, eq=False)
class Grammars:
    """Turns schemas and expressions into constraints on the tokens of one model.

    What the methods return makes a new constraint for each answer.

    Attributes:
        tokenizer: the model's. Its added tokens, such as `<|user|>`, are no text: no grammar allows them.
        vocab_size: rows of the model's embedding.
        eos_token_ids: end an answer; they are allowed where a grammar is satisfied.
    """

    tokenizer: Tokenizer
    vocab_size: int
    eos_token_ids: tuple[int, ...]

    def json_schema(self, schema: Mapping[str, Any]) -> Callable[[], GrammarConstraint]:
        """Allows JSON documents that a JSON schema describes.

        Raises:
            InputError: the schema is not valid, or uses what cannot be enforced.
        """
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        except (TypeError, ValueError) as error:
            raise InputError(f"the JSON schema cannot be used: {error}") from error
        return self._constraints(grammar, "JSON schema")

    def json_object(self) -> Callable[[], GrammarConstraint]:
        """Allows any JSON object."""
        return self.json_schema({"type": "object"})

    def regex(self, pattern: str) -> Callable[[], GrammarConstraint]:
        """Allows texts that a regular expression (of Rust's syntax, without look-around) matches as a whole.

        Raises:
            InputError: the expression is not valid.
        """
        return self._constraints(llguidance.LLMatcher.grammar_from_regex(pattern), "regular expression")

    def demanded_calls(
        self, functions: Sequence[Mapping[str, Any]], opener: str, max_calls: int | None = None
    ) -> Callable[[], GrammarConstraint]:
        """Allows a list of calls of these functions, as it stands behind an opener.

        Args:
            functions: with their names and parameters, as `read_tools` returns them. Parameters that are a JSON schema
                of an object are enforced; the flat ones of the model card allow any object.
            opener: `<|tool_call|>`, whose calls are closed by a token of their own, or `functools`.
            max_calls: 1 allows a single call, None any number.

        Raises:
            InputError: the parameters of a function are no JSON schema that can be enforced.
        """
        for name, complaint in self._unenforceable(functions).items():
            raise InputError(f"the parameters of the function {name!r} cannot be used: {complaint}")
        closer = self._closer if opener == TOOL_CALL_OPENER else ""
        return self._constraints(_calls_grammar(functions, closer, is_single=max_calls == 1), "list of functions")

    def offered_calls(self, functions: Sequence[Mapping[str, Any]]) -> Callable[[], OfferedCalls]:
        """Allows everything, but of calls, in either dialect, well-formed ones of these functions alone.

        Args:
            functions: as for `demanded_calls`; parameters that cannot be enforced allow any object.
        """
        unenforceable = self._unenforceable(functions)
        enforced = [{"name": one["name"]} if one["name"] in unenforceable else one for one in functions]
        tagged = self._constraints(_calls_grammar(enforced, self._closer), "list of functions")
        functools = self._constraints(_calls_grammar(enforced, ""), "list of functions")
        return lambda: OfferedCalls(self.tokenizer.token_bytes, tagged, functools, self._begins_list)

    def _unenforceable(self, functions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Names of functions whose parameters cannot be enforced, and why; most often there are none."""
        if not self._complaint(_calls_grammar(functions, "")):
            return {}
        complaints = {one["name"]: self._complaint(_calls_grammar([one], "")) for one in functions}
        return {name: complaint for name, complaint in complaints.items() if complaint}

    @property
    def _closer(self) -> str:
        """What ends a list of calls behind `<|tool_call|>`: a token, or its text where a vocabulary lacks it."""
        token = self.tokenizer.added.by_text.get(TOOL_CALL_CLOSER)
        return json.dumps(TOOL_CALL_CLOSER) if token is None else f"<[{token.token_id}]>"

    @cached_property
    def _begins_list(self) -> torch.Tensor:
        return find_list_beginnings([self.tokenizer.token_bytes(token_id) for token_id in range(self.vocab_size)])

    def _complaint(self, grammar: str) -> str:
        """What is wrong with a grammar; warnings are not counted."""
        complaint: str = llguidance.LLMatcher.validate_grammar(grammar, self._vocabulary)
        return "" if complaint.startswith("WARNING") else complaint

    def _constraints(self, grammar: str, noun: str) -> Callable[[], GrammarConstraint]:
        complaint = self._complaint(grammar)
        if complaint:
            raise InputError(f"the {noun} cannot be used: {complaint}")
        return lambda: GrammarConstraint(llguidance.LLMatcher(self._vocabulary, grammar, log_level=0), self.vocab_size)

    @cached_property
    def _vocabulary(self) -> llguidance.LLTokenizer:
        """The bytes of all tokens, in a tree; a second of work for a large vocabulary."""
        wrapper = llguidance.TokenizerWrapper(_Vocabulary(self))
        return llguidance.LLTokenizer(wrapper, n_vocab=self.vocab_size, eos_token=list(self.eos_token_ids))


class _Vocabulary:
    """The model's tokens in the shape that llguidance asks for."""

    bos_token_id = None

    def __init__(self, grammars: Grammars) -> None:
        self._tokenizer = grammars.tokenizer
        self.eos_token_id = grammars.eos_token_ids[0]
        self.special_token_ids: Sequence[int] = sorted(grammars.tokenizer.added.by_id)
        self.tokens = [grammars.tokenizer.token_bytes(token_id) for token_id in range(grammars.vocab_size)]

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode(), allow_special=False)


def _calls_grammar(functions: Sequence[Mapping[str, Any]], closer: str, *, is_single: bool = False) -> str:
    """A list of calls in the form that the release writes them (facts sheet 9.1), in llguidance's Lark.

    The schema of each function is a document of its own: what it refers to is found in it.
    """
    more = "" if is_single else '(WS "," WS call)*'
    names = [f"call_{number}" for number in range(len(functions))]
    rules = [
        f'start: WS "[" WS call {more} WS "]" {f"WS {closer}" if closer else ""}',
        f"call: {' | '.join(names)}",
        f"WS: /[ \\t\\r\\n]{{0,{_MAX_WHITE_SPACE}}}/",
    ]
    for name, function in zip(names, functions, strict=True):
        written = json.dumps(json.dumps(function["name"], ensure_ascii=False), ensure_ascii=False)
        rules += [
            f'{name}: "{{" WS "\\"name\\"" WS ":" WS {written} WS "," WS '
            f'"\\"arguments\\"" WS ":" WS {name}_arguments WS "}}"',
            f"{name}_arguments: %json {json.dumps(_arguments_schema(function))}",
        ]
    grammar: str = llguidance.LLMatcher.grammar_from_lark("\n".join(rules))
    return grammar


def _arguments_schema(function: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters if they are a JSON schema; the model card's flat form says nothing that could be enforced."""
    parameters = function.get("parameters")
    if isinstance(parameters, Mapping) and parameters.get("type") == "object":
        return parameters
    return {"type": "object"}
