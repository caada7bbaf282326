"""Calls of tools over HTTP, whole and streamed, free and demanded."""

import json
from typing import Any

import openai
import pytest

from phi4 import Assistant
from phi4.engine.handle import Handle
from phi4.engine.request import GeneratedToken
from phi4.processing.tools import ToolCall
from server.running import Running, user

ARGUMENTS = {"cities": ["Paris", "Rome"], "where": [{"at": [48.85, 2.35], "tags": []}], "note": 'a "b" } ]'}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "plan",
        "description": "Plans.",
        "parameters": {
            "type": "object",
            "properties": {"days": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2}},
            "required": ["days"],
            "additionalProperties": False,
        },
    },
}
OTHER: Any = {"type": "function", "function": {"name": "stop", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, assistant: Assistant) -> Any:
    """Makes the engine answer with a given text: a random model calls no tools of its own accord."""

    def say(text: str) -> None:
        token_ids = assistant.processor.tokenizer.encode(text, allow_special=True)

        async def tokens(handle: Handle) -> Any:
            for token_id in token_ids:
                yield GeneratedToken(0, token_id, None, "short", None, 0.0)
            yield GeneratedToken(0, 0, "stop", "short", None, 0.0)

        monkeypatch.setattr(Handle, "__aiter__", tokens)

    return say


def streamed_calls(stream: openai.Stream[Any]) -> tuple[str, list[list[str]], str]:
    """Content, then name and arguments of each call as they are put together by a client, then the finish reason."""
    content, calls, reason = "", [], ""
    for chunk in stream:
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or []:
                if call.index == len(calls):
                    assert call.id
                    assert call.type == "function"
                    calls.append([call.function.name, ""])
                calls[call.index][1] += call.function.arguments
    return content, calls, reason


def test_calls_are_streamed_as_they_are_answered(server: Running, says: Any) -> None:
    call = json.dumps({"name": "plan", "arguments": ARGUMENTS})
    says(f'Let me see.<|tool_call|>[{call}, {{"name": "stop", "arguments": {{}}}}]<|/tool_call|>')
    create = server.client.chat.completions.create
    whole = create(model="tiny", messages=user("Plan"), tools=[TOOL, OTHER])
    message = whole.choices[0].message
    assert message.content == "Let me see."
    assert message.tool_calls is not None
    expected = [("plan", ARGUMENTS), ("stop", {})]
    assert [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls] == expected
    assert whole.choices[0].finish_reason == "tool_calls"
    content, calls, reason = streamed_calls(
        create(model="tiny", messages=user("Plan"), tools=[TOOL, OTHER], stream=True)
    )
    assert (content, reason) == ("Let me see.", "tool_calls")
    assert [(name, json.loads(arguments)) for name, arguments in calls] == expected


def test_what_looks_like_a_call_is_text_where_no_tools_are_offered(server: Running, says: Any) -> None:
    text = '<|tool_call|>[{"name": "plan", "arguments": {}}]<|/tool_call|>'
    says(text)
    for fields in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        reply = server.send("/v1/chat/completions", {"messages": user("Plan"), **fields})
        assert reply.json["choices"][0]["message"] == {"role": "assistant", "content": text}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "plan"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_demanded_call_comes_and_follows_the_schema(
    server: Running, assistant: Assistant, choice: Any, stream: bool
) -> None:
    encode = assistant.processor.tokenizer.encode
    tools = [TOOL, OTHER] if isinstance(choice, dict) else [TOOL]
    # A random model would write white space for ever where JSON allows it, and a second call after the first.
    bias = {str(token_id): -100 for character in "\t\n\r " for token_id in encode(character, allow_special=False)}
    bias |= {str(token_id): 100 for character in "]" for token_id in encode(character, allow_special=False)}
    create = server.client.chat.completions.create
    answered: Any = create(
        model="tiny",
        messages=user("Plan"),
        tools=tools,
        tool_choice=choice,
        temperature=0,
        max_tokens=300,
        logit_bias=bias,
        stream=stream,
    )
    if stream:
        content, calls, reason = streamed_calls(answered)
        found = [tuple(call) for call in calls]
    else:
        message = answered.choices[0].message
        content, reason = message.content, answered.choices[0].finish_reason
        found = [(call.function.name, call.function.arguments) for call in message.tool_calls]
    assert (content or "", reason) == ("", "tool_calls")
    assert found[0][0] == "plan"
    assert len(json.loads(found[0][1])["days"]) == 2


def test_a_function_that_is_not_on_offer_cannot_be_demanded(server: Running) -> None:
    choice = {"type": "function", "function": {"name": "fly"}}
    reply = server.send("/v1/chat/completions", {"messages": user("x"), "tools": [TOOL], "tool_choice": choice})
    assert reply.status == 400
    assert "'fly'" in reply.json["error"]["message"]


def test_tools_and_earlier_calls_reach_the_prompt(server: Running, assistant: Assistant) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "plan", "arguments": json.dumps(ARGUMENTS)}}
    messages = [
        *user("Plan"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    tokens = server.send("/tokenize", {"messages": messages, "tools": [TOOL]}).json["tokens"]
    prompt = assistant.processor.tokenizer.decode(tokens, skip_special=False)
    assert '"name": "plan", "description": "Plans."' in prompt
    assert json.dumps([{"name": "plan", "arguments": ToolCall("plan", ARGUMENTS).arguments}]) in prompt
    assert prompt.endswith("<|tool|>done<|end|><|assistant|>")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_the_model_begins_by_itself_follows_the_schema(
    server: Running, assistant: Assistant, stream: bool
) -> None:
    encode = assistant.processor.tokenizer.encode
    bias = {str(token_id): -100 for character in "\t\n\r " for token_id in encode(character, allow_special=False)}
    bias |= {str(token_id): 100 for text in ("<|tool_call|>", "]") for token_id in encode(text, allow_special=True)}
    create = server.client.chat.completions.create
    answered: Any = create(
        model="tiny",
        messages=user("Plan"),
        tools=[TOOL, OTHER],
        temperature=1,
        seed=1,
        max_tokens=200,
        logit_bias=bias,
        stream=stream,
    )
    if stream:
        calls = [tuple(call) for call in streamed_calls(answered)[1]]
    else:
        calls = [(call.function.name, call.function.arguments) for call in answered.choices[0].message.tool_calls]
    assert len(calls) > 1
    for name, arguments in calls[:-1]:  # the limit may cut the last one
        assert name in {"plan", "stop"}
        if name == "plan":
            assert json.loads(arguments).keys() == {"days"}
            assert set(json.loads(arguments)["days"]) <= {1, 2}
