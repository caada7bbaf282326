"""What requests may hold, and how errors are told."""

import json
from typing import Any

import msgspec
import pytest

from phi4.errors import CapacityError, CheckpointError, InputError
from phi4.server.errors import ErrorResponse, RefusedError, describe_error
from phi4.server.schema import ChatRequest, CompletionRequest, ImagePart, TokenizeRequest, read_request

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "now", "parameters": {}}}


def read_chat(**fields: Any) -> ChatRequest:
    return read_request(ChatRequest, json.dumps(HELLO | fields).encode())


def test_unknown_fields_are_ignored() -> None:
    assert read_chat(user="someone", metadata={"a": 1}, store=False).messages[0].content == "Hi"


def test_null_means_not_given() -> None:
    assert read_chat(stop=None, n=None, tools=None, tool_choice=None, stream_options=None) == read_chat()


def test_content_may_be_parts() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:x", "detail": "high"}}, {"type": "text", "text": "What?"}]
    content = read_chat(messages=[{"role": "user", "content": parts}]).messages[0].content
    assert isinstance(content, list)
    assert isinstance(content[0], ImagePart)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens is 3"),
        ({"stream_options": {"include_usage": True}}, "stream is not true"),
        ({"top_logprobs": 2}, "logprobs is not true"),
        ({"tool_choice": "auto"}, "no tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "now"}}}, "no tools"),
        ({"response_format": {"type": "json_object"}, "tools": [TOOL]}, "cannot call"),
        ({"response_format": {"type": "json_schema"}}, "belong together"),
    ],
)
def test_contradictions_and_what_cannot_be_done_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RefusedError, match=complaint) as refused:
        read_chat(**fields)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "king", "content": ""}]}, "messages[0].role"),
        ({"messages": 3}, "messages"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read_chat(**fields)
    assert refused.value.body.param is not None
    assert refused.value.body.param.startswith(param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"messages": NaN}', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError):
        read_request(ChatRequest, body)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]])],
)
def test_a_prompt_has_four_forms(prompt: Any, prompts: Any) -> None:
    assert read_request(CompletionRequest, json.dumps({"prompt": prompt}).encode()).prompts == prompts


@pytest.mark.parametrize("prompt", [[], ["a", 1], [[1], "a"], [["a"]], 3])
def test_no_other_prompt_is_taken(prompt: Any) -> None:
    with pytest.raises(RefusedError, match="prompt"):
        read_request(CompletionRequest, json.dumps({"prompt": prompt}).encode())


@pytest.mark.parametrize("body", [b"{}", b'{"prompt": "a", "messages": []}'])
def test_either_a_prompt_or_messages_are_tokenized(body: bytes) -> None:
    with pytest.raises(RefusedError, match="either"):
        read_request(TokenizeRequest, body)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InputError("no picture"), 400, None),
        (CapacityError("too long"), 400, "context_length_exceeded"),
        (CheckpointError("damaged"), 500, None),
    ],
)
def test_every_error_has_a_status(error: Exception, status: int, code: str | None) -> None:
    found, body = describe_error(error)
    assert (found, body.code, body.message) == (status, code, str(error))
    assert set(json.loads(msgspec.json.encode(ErrorResponse(body)))["error"]) == {"message", "type", "param", "code"}


def test_an_unforeseen_error_does_not_tell_its_message() -> None:
    status, body = describe_error(RuntimeError("/secret/path"))
    assert status == 500
    assert "secret" not in body.message


@pytest.mark.parametrize("fields", [{"prompt": ["a"] * 1025}, {"prompt": ["a"] * 9, "n": 128}])
def test_one_request_asks_for_so_many_answers_and_no_more(fields: Any) -> None:
    with pytest.raises(RefusedError, match="1,024 answers"):
        read_request(CompletionRequest, json.dumps(fields).encode())
