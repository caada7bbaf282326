"""Changes what schemathesis has made up before it is sent: to short answers, and to what types alone cannot say.

A schema says what each field may hold. Which fields belong together, which ids the vocabulary has, and what is a
picture it does not say, so valid bodies are brought into line; of invalid ones only the length of answers is changed.
"""

import struct
from copy import deepcopy
from typing import Any

import schemathesis
from schemathesis.generation import GenerationMode

from phi4.server.schema import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest
from server.running import data_uri, picture_part, sound_bytes, sound_part

BODIES = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}
MAX_TOKENS, MAX_ANSWERS = 2, 3
NUM_PLAIN_TOKENS = 256  # behind them come control tokens, some of which stand for media
# 0.2 s of 8 bits at 8 kHz: all bytes are ASCII, so that it can stand where a string is expected.
SOUND_TEXT = (
    b"RIFF"
    + struct.pack("<I", 36 + 1600)
    + b"WAVEfmt "
    + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    + b"data"
    + struct.pack("<I", 1600)
    + b"~" * 1600
).decode("ascii")
PICTURE, SOUND = picture_part()["image_url"], sound_part()["input_audio"]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    if not isinstance(case.body, dict):
        return
    case.body = body = deepcopy(case.body)
    is_valid = case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE
    if case.path.startswith("/v1/audio"):
        if is_valid:
            body["file"] = SOUND_TEXT
            body.pop("model", None)
            body.pop("timestamp_granularities[]", None)
        return
    if is_valid:
        # Fields that the server does not know may be anything, even where another operation knows them.
        known = {name: value for name, value in body.items() if name in BODIES[case.path].__struct_fields__}
        unknown = {name: value for name, value in body.items() if name not in known}
        _bring_into_line(case.path, known)
        case.body = body = _with_whole_numbers(known) | unknown
    _shorten(body)


def _shorten(body: dict[str, Any]) -> None:
    for name, most in (("max_tokens", MAX_TOKENS), ("max_completion_tokens", MAX_TOKENS), ("n", MAX_ANSWERS)):
        if isinstance(body.get(name), int) and body[name] > most:
            body[name] = most
    if "messages" in body and body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
        body["max_tokens"] = MAX_TOKENS


def _bring_into_line(path: str, body: dict[str, Any]) -> None:
    body.pop("model", None)
    for message in body.get("messages") or ():
        _change_message(message)
    if body.get("messages") is not None:
        body.pop("prompt", None)
        body.pop("max_completion_tokens", None)
    elif path == "/tokenize":
        body["prompt"] = body.get("prompt") or "a"
    if not body.get("logprobs"):
        body.pop("top_logprobs", None)
    if not body.get("stream"):
        body.pop("stream_options", None)
    _change_tools(body)
    _change_prompt(body)
    if body.get("logit_bias"):
        body["logit_bias"] = {str(int(key) % NUM_PLAIN_TOKENS): bias for key, bias in body["logit_bias"].items()}
    if "tokens" in body:
        body["tokens"] = [token_id % NUM_PLAIN_TOKENS for token_id in body["tokens"]]


def _change_message(message: dict[str, Any]) -> None:
    if message["role"] != "assistant":
        message.pop("tool_calls", None)
    for call in message.get("tool_calls") or ():
        call.get("function", call)["arguments"] = "{}"
    for part in message["content"] if isinstance(message.get("content"), list) else ():
        match part["type"]:
            case "image_url":
                part["image_url"] = PICTURE
            case "input_audio":
                part["input_audio"] = SOUND
            case "audio_url":
                part["audio_url"] = {"url": data_uri(sound_bytes(0.2), "audio/wav")}


def _change_tools(body: dict[str, Any]) -> None:
    tools, choice = body.get("tools"), body.get("tool_choice")
    if not tools:
        body.pop("tool_choice", None)
    elif isinstance(choice, dict):
        choice["function"]["name"] = tools[0].get("function", tools[0])["name"]
    form = body.get("response_format")
    if form and form["type"] == "json_schema":
        form["json_schema"] = {"schema": {"type": "object"}}
    elif form:
        form.pop("json_schema", None)
    if form and tools:
        body.pop("response_format")


def _change_prompt(body: dict[str, Any]) -> None:
    prompt = body.get("prompt")
    if isinstance(prompt, list):
        body["prompt"] = [_id_in_vocabulary(member) for member in prompt]
    if "messages" in body:
        return
    for name in ("suffix", "best_of"):
        body.pop(name, None)
    if body.get("max_tokens") == 0:
        body["echo"] = True
    if body.get("echo"):
        body.pop("stream", None)
        body.pop("stream_options", None)


def _with_whole_numbers(value: Any) -> Any:
    """To a schema 1.0 is an integer; to the server it is not."""
    match value:
        case dict():
            return {name: _with_whole_numbers(member) for name, member in value.items()}
        case list():
            return [_with_whole_numbers(member) for member in value]
        case float():
            return int(value) if value.is_integer() else value
    return value


def _id_in_vocabulary(member: Any) -> Any:
    if isinstance(member, list):
        return [_id_in_vocabulary(one) for one in member]
    return member if isinstance(member, str) else member % NUM_PLAIN_TOKENS
