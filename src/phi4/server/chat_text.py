"""The text of a chat's answer as OpenAI's messages: content, and calls of tools where tools were offered."""

import json
import uuid
from collections.abc import Iterable

from phi4.processing.tools import parse_tool_calls
from phi4.server.responses import AnswerMessage, Delta, FinishReason, FunctionCall, ToolCallItem
from phi4.server.tool_stream import CallArguments, CallStart, Piece, ToolCallStream


def whole_message(text: str, has_tools: bool) -> AnswerMessage:
    """A whole answer; calls are looked for if tools were offered."""
    if not has_tools:
        return AnswerMessage(text)
    content, calls = parse_tool_calls(text)
    items = [
        ToolCallItem(
            FunctionCall(json.dumps(dict(call.arguments), ensure_ascii=False), call.name),
            id=_call_id(),
            type="function",
        )
        for call in calls
    ]
    return AnswerMessage(content or None, tool_calls=items) if items else AnswerMessage(text)


class StreamedText:
    """One answer of a streamed chat: pieces of text become deltas."""

    def __init__(self, has_tools: bool, opener: str) -> None:
        """Begins an answer.

        Args:
            has_tools: whether tools were offered.
            opener: text that the answer was made to begin with.
        """
        self._calls = ToolCallStream() if has_tools else None
        self._begun = list(self._calls.feed(opener)) if self._calls else []

    def push(self, text: str, is_last: bool) -> list[Delta]:
        """The deltas that more text brings, none if nothing is certain yet."""
        if self._calls is None:
            return [Delta(content=text)] if text else []
        pieces: Iterable[Piece] = [*self._begun, *self._calls.feed(text), *(self._calls.flush() if is_last else ())]
        self._begun = []
        return [_delta(piece) for piece in pieces]

    def finish_reason(self, reason: str) -> FinishReason:
        """The reason with which the answer ended, of which "stop" has a special form behind calls."""
        return finish_reason(reason, has_calls=self._calls is not None and self._calls.num_calls > 0)


def finish_reason(reason: str, has_calls: bool) -> FinishReason:
    """A limit is a limit, calls or not: the last one may be cut."""
    if reason == "length":
        return "length"
    return "tool_calls" if has_calls else "stop"


def _delta(piece: Piece) -> Delta:
    match piece:
        case CallStart():
            call = ToolCallItem(FunctionCall("", piece.name), piece.index, _call_id(), "function")
            return Delta(tool_calls=[call])
        case CallArguments():
            return Delta(tool_calls=[ToolCallItem(FunctionCall(piece.text), piece.index)])
        case str():
            return Delta(content=piece)


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
