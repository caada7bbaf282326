"""Calls that a request demands: how an answer is made to begin with one, and held to the functions on offer."""

from collections.abc import Callable
from dataclasses import dataclass

from phi4.engine.constraint import Constraint
from phi4.processing.grammar import Grammars
from phi4.processing.tokenizer import Tokenizer
from phi4.processing.tools import FUNCTOOLS, TOOL_CALL_OPENER, read_tools
from phi4.server.errors import invalid_field
from phi4.server.schema import ChatRequest, NamedTool


@dataclass(frozen=True)
class ForcedCall:
    """An answer that must be a call.

    Attributes:
        opener: the text that the answer is made to begin with.
        token_ids: its tokens, to be put behind the prompt.
        constrain: holds what follows to a list of calls.
    """

    opener: str
    token_ids: tuple[int, ...]
    constrain: Callable[[], Constraint]


def forced_call(request: ChatRequest, tokenizer: Tokenizer, grammars: Grammars) -> ForcedCall | None:
    """What a `tool_choice` of "required" or of one function asks for; None if the model may choose.

    Raises:
        InputError: a function's parameters are no JSON schema that can be enforced.
        RefusedError: the function that is named is not on offer.
    """
    functions = read_tools(request.tools or [])
    if isinstance(request.tool_choice, NamedTool):
        name = request.tool_choice.function.name
        functions = [function for function in functions if function["name"] == name]
        if not functions:
            raise invalid_field(f"tool_choice names the function {name!r}, which is not among the tools", "tool_choice")
    elif request.tool_choice != "required":
        return None
    max_calls = 1 if isinstance(request.tool_choice, NamedTool) else None
    opener = TOOL_CALL_OPENER if TOOL_CALL_OPENER in tokenizer.added.by_text else FUNCTOOLS
    token_ids = tuple(tokenizer.encode(opener, allow_special=True))
    return ForcedCall(opener, token_ids, grammars.demanded_calls(functions, opener, max_calls))
