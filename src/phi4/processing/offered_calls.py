"""Answers that may call functions: free text, in which calls are well-formed wherever they begin."""

import re
from collections.abc import Callable, Sequence

import torch

from phi4.processing.grammar_constraint import GrammarConstraint
from phi4.processing.tools import FUNCTOOLS, TOOL_CALL_OPENER

# As much of a text as must be known to see that an opener ends it, and that its word begins there.
_TAIL_BYTES = 64
_WORD = re.compile(rf"\b{FUNCTOOLS}\s*\Z")


class OfferedCalls:
    """Allows everything until an answer begins to call functions, and then calls of those on offer alone.

    Behind `<|tool_call|>` calls must follow. Behind the word `functools` they must if a bracket does: without one it is
    an ordinary word. `processing/tools.py` reads openers alike.
    """

    def __init__(
        self,
        token_bytes: Callable[[int], bytes],
        tagged_calls: Callable[[], GrammarConstraint],
        functools_calls: Callable[[], GrammarConstraint],
        begins_list: torch.Tensor,
    ) -> None:
        """Begins an answer.

        Args:
            token_bytes: what a token adds to the text.
            tagged_calls: holds what follows `<|tool_call|>`, the closer included.
            functools_calls: holds what follows `functools`.
            begins_list: tokens that are white space, if any, and then a bracket: bool, [vocabulary].
        """
        self._token_bytes = token_bytes
        self._tagged_calls = tagged_calls
        self._functools_calls = functools_calls
        self._begins_list = begins_list
        self._tail = b""
        self._calls: GrammarConstraint | None = None
        self._maybe_calls: GrammarConstraint | None = None

    def allowed(self) -> torch.Tensor | None:
        """The tokens that may come next, bool, [vocabulary]; None where all may, outside of calls."""
        if self._calls is not None:
            return self._calls.allowed()
        if self._maybe_calls is not None:
            return ~self._begins_list | self._maybe_calls.allowed()
        return None

    def advance(self, token_id: int) -> None:
        """Takes the next token of the answer."""
        if self._maybe_calls is not None and self._begins_list[token_id]:
            self._calls, self._maybe_calls = self._maybe_calls, None
        if self._calls is None:
            self._read_text(self._token_bytes(token_id))
            return
        self._calls.advance(token_id)
        if self._calls.is_satisfied:
            self._calls, self._tail = None, b""

    def _read_text(self, written: bytes) -> None:
        self._tail = (self._tail + written)[-_TAIL_BYTES:]
        text = self._tail.decode("utf-8", "ignore")
        if text.endswith(TOOL_CALL_OPENER):
            self._calls, self._maybe_calls = self._tagged_calls(), None
        elif not _WORD.search(text) and written.strip():
            self._maybe_calls = None
        elif self._maybe_calls is None and _WORD.search(text):
            self._maybe_calls = self._functools_calls()


def find_list_beginnings(tokens: Sequence[bytes]) -> torch.Tensor:
    """Which tokens are white space, if any, and then a bracket: bool, [vocabulary]."""
    return torch.tensor([token.lstrip().startswith(b"[") for token in tokens])
