"""Grammars that an answer can be held to: JSON schemas and regular expressions, as tokens that may come next."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import llguidance
import numpy as np
import torch

from phi4.errors import InputError
from phi4.processing.tokenizer import Tokenizer


class GrammarConstraint:
    """Follows one answer through a grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def allowed(self) -> torch.Tensor:
        """The tokens that may come next, bool, [vocabulary]; end tokens where the grammar is satisfied.

        Raises:
            InputError: the grammar became too complex on the way.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little").astype(bool)
        return torch.from_numpy(mask)

    def advance(self, token_id: int) -> None:
        """Takes the next token of the answer."""
        self._matcher.consume_token(token_id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            reason, _, _ = self._matcher.get_error().partition("\n<state>")
            raise InputError(f"the answer cannot follow its grammar any further: {reason}")


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

    def _constraints(self, grammar: str, noun: str) -> Callable[[], GrammarConstraint]:
        complaint = llguidance.LLMatcher.validate_grammar(grammar, self._vocabulary)
        if complaint and not complaint.startswith("WARNING"):
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
