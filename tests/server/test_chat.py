"""Chats over HTTP: the same answers as without a server, as a whole and streamed, and what was used for them."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from phi4 import Assistant, Message, Sampling
from phi4.checkpoint.quantise import SCHEMES, quantise
from phi4.engine.engine import Engine
from phi4.processing.messages import user_message
from phi4.server.chat import _Chat
from phi4.server.limits import ServerLimits
from phi4.server.schema import ChatRequest, read_request
from phi4.server.service import Service
from server.running import (
    Running,
    picture_bytes,
    picture_part,
    running_server,
    sound_bytes,
    sound_part,
    text_part,
    user,
)

GREEDY = {"model": "tiny", "temperature": 0, "max_tokens": 12}
MIXTURES = {
    "text": (user("Hello"), user_message("Hello")),
    "vision": (user(picture_part(), text_part("What?")), user_message("What?", images=[picture_bytes()])),
    "speech": (user(sound_part(), text_part("What?")), user_message("What?", sounds=[sound_bytes()])),
    "both": (
        user(picture_part(), sound_part(), text_part("What?")),
        user_message("What?", images=[picture_bytes()], sounds=[sound_bytes()]),
    ),
}


def streamed(server: Running, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a stream."""
    reply = server.send("/v1/chat/completions", GREEDY | fields | {"stream": True})
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def text_of(chunks: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in choices)


@pytest.mark.parametrize("mixture", MIXTURES)
def test_an_answer_is_the_one_without_a_server_streamed_or_not(
    server: Running, assistant: Assistant, mixture: str
) -> None:
    raw, message = MIXTURES[mixture]
    expected = assistant.reply([message], sampling=Sampling(max_tokens=12)).answer
    reply = server.send("/v1/chat/completions", GREEDY | {"messages": raw})
    (choice,) = reply.json["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected.text}
    assert choice["finish_reason"] == expected.finish_reason
    assert text_of(streamed(server, messages=raw)) == expected.text
    used = reply.json["usage"]["phi4"]
    assert (used["adapter"], used["rotary"]) == (expected.adapter, expected.rotary)
    assert [(one["modality"], one["tokens"]) for one in used["media"]] == list(expected.media)
    assert reply.json["usage"]["prompt_tokens"] == len(expected.prompt_token_ids)
    assert reply.headers["phi4-adapter"] == (expected.adapter or "none")
    assert reply.headers["phi4-rotary"] == expected.rotary
    assert reply.headers["phi4-prompt-tokens"] == str(len(expected.prompt_token_ids))
    assert reply.headers["phi4-media"] == (", ".join(f"{name}={count}" for name, count in expected.media) or "none")


def test_a_quantised_model_is_served_like_any_other(tiny_directory: Path, tmp_path: Path) -> None:
    quantise(tiny_directory, tmp_path / "quantised", SCHEMES["4bit"], encoders=True, adapters=True)
    assistant = Assistant.load(tmp_path / "quantised", device="cpu")
    raw, message = MIXTURES["both"]
    expected = assistant.reply([message], sampling=Sampling(max_tokens=12)).answer
    with running_server(assistant, ServerLimits()) as server:
        reply = server.send("/v1/chat/completions", GREEDY | {"messages": raw})
    assert reply.json["choices"][0]["message"]["content"] == expected.text


def test_usage_comes_last_in_a_stream_if_it_is_asked_for(server: Running) -> None:
    messages = user(picture_part(), text_part("What?"))
    chunks = streamed(server, messages=messages, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert chunks[-1]["usage"]["prompt_tokens_details"]["image_tokens"] > 0
    assert all("usage" not in chunk for chunk in streamed(server, messages=messages))


def test_the_last_chunk_of_a_choice_says_why_it_ended(server: Running) -> None:
    chunks = streamed(server, messages=user("Hello"))
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(server: Running) -> None:
    whole = server.send("/v1/chat/completions", GREEDY | {"messages": user("Hello")}).json
    text = whole["choices"][0]["message"]["content"]
    stop = text[3:6]
    expected = text[: text.index(stop)]
    reply = server.send("/v1/chat/completions", GREEDY | {"messages": user("Hello"), "stop": [stop]}).json
    assert reply["choices"][0]["message"]["content"] == expected
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert text_of(streamed(server, messages=user("Hello"), stop=stop)) == expected
    server.wait_until_idle()


def test_n_answers_differ_and_a_seed_repeats_them(server: Running) -> None:
    fields = {"messages": user("Hello"), "n": 3, "seed": 7, "temperature": 1.0}
    first, second = (server.send("/v1/chat/completions", GREEDY | fields).json["choices"] for _ in range(2))
    texts = [choice["message"]["content"] for choice in first]
    assert texts == [choice["message"]["content"] for choice in second]
    assert [choice["index"] for choice in first] == [0, 1, 2]
    assert len(set(texts)) == 3
    chunks = streamed(server, **fields)
    assert [text_of(chunks, index) for index in range(3)] == texts


def test_log_probabilities_come_with_every_token(server: Running) -> None:
    fields = {"messages": user("Hello"), "logprobs": True, "top_logprobs": 2}
    whole = server.send("/v1/chat/completions", GREEDY | fields).json["choices"][0]
    content = whole["logprobs"]["content"]
    assert len(content) == 12
    assert all(entry["logprob"] == entry["top_logprobs"][0]["logprob"] for entry in content)
    assert (
        b"".join(bytes(entry["bytes"]) for entry in content)
        .decode("utf-8", "ignore")
        .startswith(whole["message"]["content"][:1])
    )
    chunks = [chunk["choices"][0]["logprobs"] for chunk in streamed(server, **fields)]
    assert [entry for logprobs in chunks if logprobs for entry in logprobs["content"]] == content


def test_a_bias_forces_a_token(server: Running, assistant: Assistant) -> None:
    (token_id,) = assistant.processor.tokenizer.encode("Z", allow_special=False)
    fields = {"messages": user("Hello"), "logit_bias": {str(token_id): 100}, "max_tokens": 4}
    reply = server.send("/v1/chat/completions", GREEDY | fields).json
    assert reply["choices"][0]["message"]["content"] == "ZZZZ"


def test_a_schema_is_kept(server: Running, assistant: Assistant) -> None:
    # A random model would write white space for ever where JSON allows it.
    spaces = [assistant.processor.tokenizer.encode(space, allow_special=False)[0] for space in "\t\n\r "]
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    fields = {
        "messages": user("Hello"),
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "max_tokens": 200,
        "logit_bias": {str(token_id): -100 for token_id in spaces},
    }
    reply = server.send("/v1/chat/completions", GREEDY | fields).json
    assert isinstance(json.loads(reply["choices"][0]["message"]["content"])["a"], bool)


def test_a_conversation_keeps_its_turns(server: Running, assistant: Assistant) -> None:
    raw = [
        {"role": "developer", "content": "S"},
        {"role": "user", "content": "Hello", "name": "someone"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [text_part("Bye")]},
    ]
    turns = [Message("system", "S"), Message("user", "Hello"), Message("assistant"), Message("user", ("Bye",))]
    expected = assistant.reply(turns, sampling=Sampling(max_tokens=12)).answer
    reply = server.send("/v1/chat/completions", GREEDY | {"messages": raw}).json
    assert reply["choices"][0]["message"]["content"] == expected.text


@pytest.mark.parametrize(
    ("fields", "status", "complaint"),
    [
        ({"messages": []}, 400, "no messages"),
        ({"model": "gpt-4"}, 404, "there is tiny"),
        ({"model": "tiny:vision"}, 400, "no adapter"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": 1e300}, 400, "0.0001 to 100"),
        ({"top_p": 5e-324}, 400, "top_p"),
        ({"stop_token_ids": [-5]}, 400, "stop_token_ids must be at least 0 each"),
        ({"stop": ""}, 400, "stop string"),
        ({"stop": ["x"] * 65}, 400, "65 stop strings"),
        ({"logit_bias": {"x": 1}}, 400, "logit_bias"),
        ({"messages": user("word " * 200_000)}, 400, "context"),
        ({"messages": user({"type": "image_url", "image_url": {"url": "/etc/passwd"}})}, 400, "data URI"),
        ({"messages": user({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})}, 400, "data URI"),
        ({"messages": user({"type": "image_url", "image_url": {"url": "http://example.com"}})}, 400, "remote"),
        ({"messages": user({"type": "input_audio", "input_audio": {"data": "!"}})}, 400, "base64"),
        ({"messages": user(picture_part(picture_bytes()[:200]))}, 400, "image 1"),
        ({"messages": user(sound_part(b"RIFF nothing"))}, 400, "audio 1"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_has_a_status_and_a_reason(
    server: Running, fields: dict[str, Any], status: int, complaint: str, stream: bool
) -> None:
    reply = server.send("/v1/chat/completions", GREEDY | {"messages": user("Hello"), "stream": stream} | fields)
    assert reply.status == status
    assert complaint in reply.json["error"]["message"]
    assert server.service.admission.num_requests == 0


def test_a_pack_may_be_named_for_conversations_that_use_it(server: Running) -> None:
    reply = server.send("/v1/chat/completions", GREEDY | {"messages": user(picture_part()), "model": "tiny:vision"})
    assert reply.json["model"] == "tiny:vision"


def test_a_request_without_a_temperature_has_that_of_the_server(server: Running, assistant: Assistant) -> None:
    service = Service(assistant, server.service.engine, "tiny", default_temperature=0.25)
    asked = read_request(ChatRequest, json.dumps({"messages": user("Hello")}).encode())
    (request,) = _Chat(service, asked).prepare()
    assert request.sampling.temperature == 0.25
    (request,) = _Chat(service, msgspec.structs.replace(asked, temperature=0.5)).prepare()
    assert request.sampling.temperature == 0.5
    assert server.service.default_temperature == 1.0


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": user("Which tokens of this have been seen before? " * 5)}),
        ("/v1/completions", {"prompt": ["Which tokens of that have been seen before? " * 5]}),
    ],
)
def test_usage_says_what_was_found_in_the_cache(
    start: Callable[..., AbstractContextManager[Running]], path: str, asked: dict[str, Any]
) -> None:
    with start() as server:
        first, second = (server.send(path, GREEDY | asked).json["usage"] for _ in range(2))
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert 0 < second["prompt_tokens_details"]["cached_tokens"] < second["prompt_tokens"]


def test_an_answer_ends_where_the_cache_does(assistant: Assistant) -> None:
    engine = Engine(assistant.loaded.model, (), cache_tokens=64)
    asked = read_request(ChatRequest, json.dumps({"messages": user("Hello"), "temperature": 0}).encode())
    (request,) = _Chat(Service(assistant, engine, "tiny"), asked).prepare()
    tokens = list(engine.submit(request))
    assert len(request.inputs.token_ids) + len(tokens) == engine.cache_tokens == 64
    assert tokens[-1].finish_reason == "length"
