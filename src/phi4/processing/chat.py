"""Conversations to token ids: a chat template's control tokens, and around them text that can only be text."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from phi4.errors import InputError
from phi4.processing.defuse import Defuser, choose_marker
from phi4.processing.messages import Message
from phi4.processing.placeholders import lacking_modality
from phi4.processing.template import ChatTemplate
from phi4.processing.tokenizer import Tokenizer
from phi4.processing.tools import FUNCTOOLS, TOOL_CALL_CLOSER, TOOL_CALL_OPENER, format_tool_calls, read_tools


def encode_chat(
    messages: Sequence[Message],
    tools: Any | None,
    *,
    template: ChatTemplate,
    tokenizer: Tokenizer,
    placeholders: Mapping[str, str],
    add_generation_prompt: bool = True,
) -> list[int]:
    """Turns a conversation into token ids, with one placeholder for each picture or sound.

    For harmless text the ids are those of the template's output under the checkpoint's own tokenizer. Text that spells
    control tokens or placeholders is encoded as the characters that it is made of.

    Args:
        messages: the conversation.
        tools: functions on offer, as `read_tools` takes them; an empty list is the same as None.
        template: lays the conversation out.
        tokenizer: encodes it.
        placeholders: text of the placeholder token of each modality.
        add_generation_prompt: whether to end with the opener of the assistant's answer.

    Raises:
        InputError: there are no messages, the template refuses them or knows no tools, a modality has no placeholder,
            or text is not valid Unicode.
    """
    if not messages:
        raise InputError("the conversation has no messages; give at least one")
    functions = (None if tools is None else read_tools(tools)) or None
    if functions is not None and template.tool_style == "system message":
        messages, functions = _offer_in_system_message(messages, functions), None
    _check_tools(messages, functions, template)
    marker = choose_marker([template.source, json.dumps(functions, ensure_ascii=False), *_texts(messages)])
    defuser = Defuser(token_texts=tuple(tokenizer.added.by_text), marker=marker)
    rendered = template.render(
        [_template_fields(message, defuser, placeholders) for message in messages],
        tools=functions and [{"type": "function", "function": defuser.value(function)} for function in functions],
        add_generation_prompt=add_generation_prompt,
    )
    pieces = tokenizer.added.split(rendered)
    return tokenizer.encode_pieces(defuser.remove(piece) if isinstance(piece, str) else piece for piece in pieces)


def _offer_in_system_message(messages: Sequence[Message], functions: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Puts the tools into the first system message as JSON text, as the release wants it; creates one if need be."""
    if any(message.tools is not None for message in messages):
        raise InputError("tools are given twice: beside the conversation and in its system message; give them once")
    offered = json.dumps(functions, ensure_ascii=False)
    for index, message in enumerate(messages):
        if message.role == "system":
            with_tools = Message("system", message.content, tools=offered)
            return [*messages[:index], with_tools, *messages[index + 1 :]]
    return [Message("system", tools=offered), *messages]


def _check_tools(
    messages: Sequence[Message], functions: Sequence[Mapping[str, Any]] | None, template: ChatTemplate
) -> None:
    """Refuses tools that the template would leave out without a word."""
    if functions is not None and template.tool_style != "variable":
        raise InputError("this model's chat template has no place for tools; leave them out or take another model")
    if any(message.tools is not None for message in messages) and template.tool_style != "system message":
        raise InputError(
            "this model's chat template does not read tools from a system message; give them beside the conversation"
        )


def _texts(messages: Sequence[Message]) -> Iterator[str]:
    """All text in the messages that comes from outside."""
    for message in messages:
        yield from (part for part in message.parts if isinstance(part, str))
        yield message.tools or ""
        yield format_tool_calls(message.tool_calls)


def _template_fields(message: Message, defuser: Defuser, placeholders: Mapping[str, str]) -> dict[str, str]:
    """One message as templates want it: every value a string, outside text defused, media as placeholders."""
    content = []
    for part in message.parts:
        if isinstance(part, str):
            content.append(defuser.text(part))
        elif part.modality in placeholders:
            content.append(placeholders[part.modality])
        else:
            raise lacking_modality(part.modality)
    if message.tool_calls:
        content.append(_write_calls(message, defuser))
    fields = {"role": message.role, "content": "".join(content)}
    if message.tools is not None:
        fields["tools"] = defuser.text(message.tools)
    return fields


def _write_calls(message: Message, defuser: Defuser) -> str:
    """Calls in the release's tokens where the tokenizer has them, else as `functools[...]` on a line of their own."""
    calls = defuser.text(format_tool_calls(message.tool_calls))
    if TOOL_CALL_OPENER in defuser.token_texts and TOOL_CALL_CLOSER in defuser.token_texts:
        return TOOL_CALL_OPENER + calls + TOOL_CALL_CLOSER
    return ("\n" if any(message.parts) else "") + FUNCTOOLS + calls
