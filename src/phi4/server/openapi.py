"""`GET /openapi.json`: every path, what it takes and what it answers, from the types that read and write them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from inspect import cleandoc
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from phi4.server.errors import ErrorResponse
from phi4.server.responses import (
    ChatChunk,
    ChatCompletion,
    Completion,
    DecodedText,
    Health,
    ModelCard,
    ModelList,
    TimedTranscription,
    TokenizerInfo,
    Tokens,
    Transcription,
)
from phi4.server.schema import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
    TranscriptionForm,
)
from phi4.server.service import service_of

JSON, TEXT, EVENTS = "application/json", "text/plain", "text/event-stream"
OVERVIEW = """OpenAI's interface for a Phi-4 model that reads text, pictures and sounds.

Fields that are not named here are ignored. Fields that contradict each other, or ask for what cannot be done, are
refused with status 400 and a message that says why. Whole numbers are written without a point."""
# What every path that takes a body may answer instead.
REFUSALS = MappingProxyType(
    {
        400: "Something in the request cannot be used, or fields contradict each other.",
        404: "There is no such model.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        415: "The body is of another content type.",
        429: "The server is busy; Retry-After says when to come back.",
        500: "The server failed.",
        503: "The server is about to stop.",
    }
)
USED_HEADERS = {
    "phi4-adapter": "the LoRA that was active, or none",
    "phi4-rotary": "the LongRoPE table of the last token that the headers know of: short, long or none",
    "phi4-prompt-tokens": "tokens of the prompt",
    "phi4-media": "modality and tokens of each medium, or none",
}


@dataclass(frozen=True)
class Operation:
    """What stands at one path.

    Attributes:
        summary: what it does.
        answers: by content type, what the answer may be, or what each event of a stream holds; nothing is text, or an
            object that is not described.
        body: the type that is read; None takes no body.
        examples: bodies that are answered with status 200.
        refusals: statuses besides 200, with what they mean.
        tells_used: whether headers say what the answer was computed with.
        is_open: whether it is there for everybody, key or not.
    """

    summary: str
    answers: Mapping[str, tuple[type, ...]]
    body: type | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    refusals: Mapping[int, str] = field(default_factory=dict)
    tells_used: bool = False
    is_open: bool = False


HELLO = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
SHORT = {"temperature": 0, "max_tokens": 8}
OPERATIONS: Mapping[str, Operation] = {
    "POST /v1/chat/completions": Operation(
        "Answers a conversation of text, pictures and sounds; with `stream`, as events that each hold a ChatChunk.",
        {JSON: (ChatCompletion,), EVENTS: (ChatChunk,)},
        ChatRequest,
        {
            "question": {"messages": HELLO, **SHORT},
            "stream": {"messages": HELLO, **SHORT, "stream": True, "stream_options": {"include_usage": True}},
            "tools": {"messages": HELLO, **SHORT, "tools": [{"type": "function", "function": TOOL}]},
            "logprobs": {"messages": HELLO, **SHORT, "n": 2, "logprobs": True, "top_logprobs": 2, "stop": ["."]},
        },
        REFUSALS,
        tells_used=True,
    ),
    "POST /v1/completions": Operation(
        "Continues prompts, given as text or token ids; with `stream`, as events that each hold a Completion.",
        {JSON: (Completion,), EVENTS: (Completion,)},
        CompletionRequest,
        {
            "text": {"prompt": "The capital of France is", **SHORT},
            "ids": {"prompt": [[84, 104, 101], [84]], **SHORT, "stream": True},
            "scores": {"prompt": "The capital of France is Paris", "max_tokens": 0, "echo": True, "logprobs": 1},
        },
        REFUSALS,
        tells_used=True,
    ),
    "POST /v1/audio/transcriptions": Operation(
        "Writes down what is said in a sound file.",
        {JSON: (Transcription, TimedTranscription), TEXT: (), "text/vtt": ()},
        TranscriptionForm,
        refusals=REFUSALS,
        tells_used=True,
    ),
    "POST /v1/audio/translations": Operation(
        "Writes down in English what is said in a sound file.",
        {JSON: (Transcription, TimedTranscription), TEXT: (), "text/vtt": ()},
        TranscriptionForm,
        refusals=REFUSALS,
        tells_used=True,
    ),
    "GET /v1/models": Operation("The base, and each pack on it.", {JSON: (ModelList,)}),
    "GET /v1/models/{name}": Operation("One of them.", {JSON: (ModelCard,)}, refusals={404: REFUSALS[404]}),
    "POST /tokenize": Operation(
        "Token ids of a prompt, or of messages with every placeholder expanded.",
        {JSON: (Tokens,)},
        TokenizeRequest,
        {"prompt": {"prompt": "Hello"}, "messages": {"messages": HELLO}},
        REFUSALS,
    ),
    "POST /detokenize": Operation(
        "The text of token ids.", {JSON: (DecodedText,)}, DetokenizeRequest, {"tokens": {"tokens": [15, 16]}}, REFUSALS
    ),
    "GET /tokenizer_info": Operation("The end token, and the layout of chats.", {JSON: (TokenizerInfo,)}),
    "GET /health": Operation(
        "Whether the server takes requests.", {JSON: (Health,)}, refusals={503: "It is about to stop."}, is_open=True
    ),
    "GET /metrics": Operation("Numbers for Prometheus.", {TEXT: ()}),
    "GET /openapi.json": Operation("This document.", {JSON: ()}, is_open=True),
    "GET /": Operation("A page for chats.", {"text/html": ()}, is_open=True),
    "GET /page/style.css": Operation("A file of the page.", {"text/css": ()}, is_open=True),
    "GET /page/script.js": Operation("A file of the page.", {"text/javascript": ()}, is_open=True),
}


async def openapi(request: Request) -> Response:
    """The document, as it holds for this server."""
    return JSONResponse(document(has_key=service_of(request).api_key is not None))


def document(has_key: bool) -> dict[str, Any]:
    """Writes the document.

    Args:
        has_key: whether clients need a key.
    """
    operations = OPERATIONS.values()
    bodies = [operation.body for operation in operations if operation.body is not None]
    answered = [kind for operation in operations for kinds in operation.answers.values() for kind in kinds]
    kinds = [*dict.fromkeys([*bodies, *answered, ErrorResponse])]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    _describe_file(components["TranscriptionForm"])
    for component in components.values():
        component["description"] = cleandoc(component["description"])
    writer = _Writer(dict(zip(kinds, schemas, strict=True)), has_key)
    paths: dict[str, dict[str, Any]] = {}
    for place, operation in OPERATIONS.items():
        method, _, path = place.partition(" ")
        paths.setdefault(path, {})[method.lower()] = writer.operation(path, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "phi4", "version": version("phi4"), "description": OVERVIEW},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _describe_file(form: dict[str, Any]) -> None:
    """Adds the sound to the fields of a form, which are read without it."""
    form["properties"]["file"] = {"type": "string", "contentMediaType": "application/octet-stream"}
    form["required"] = ["file"]


class _Writer:
    """Writes operations, for which it knows the schema of each type."""

    def __init__(self, schemas: Mapping[type, dict[str, Any]], has_key: bool) -> None:
        self._schemas = schemas
        self._has_key = has_key

    def operation(self, path: str, operation: Operation) -> dict[str, Any]:
        """One operation as OpenAPI has it."""
        needs_key = self._has_key and not operation.is_open
        refusals = dict(operation.refusals) | ({401: "The key is missing or wrong."} if needs_key else {})
        written: dict[str, Any] = {
            "summary": operation.summary,
            "responses": {
                "200": self._answer(operation),
                **{str(status): self._refusal(status, why, operation) for status, why in sorted(refusals.items())},
            },
            "security": [{"key": []}] if needs_key else [],
        }
        if operation.body is not None:
            written["requestBody"] = {"required": True, "content": self._body(operation.body, operation.examples)}
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        if names:
            written["parameters"] = [_parameter(name) for name in names]
        return written

    def _body(self, kind: type, examples: Mapping[str, Any]) -> dict[str, Any]:
        schema = self._schemas[kind]
        if kind is TranscriptionForm:
            return {"multipart/form-data": {"schema": schema}}
        return {JSON: {"schema": schema, "examples": {name: {"value": value} for name, value in examples.items()}}}

    def _answer(self, operation: Operation) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for content_type, kinds in operation.answers.items():
            schemas = [self._schemas[kind] for kind in kinds] or [
                {"type": "object" if content_type == JSON else "string"}
            ]
            if content_type == EVENTS:
                schemas = [_event(schema) for schema in schemas]
            content[content_type] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
        used = USED_HEADERS if operation.tells_used else {}
        return {"description": operation.summary, "content": content, "headers": _headers(used)}

    def _refusal(self, status: int, why: str, operation: Operation) -> dict[str, Any]:
        # A server that is about to stop says so in the form of its health.
        is_health = operation.answers == {JSON: (Health,)}
        retry = {"Retry-After": "seconds after which to ask again"} if status in (429, 503) and not is_health else {}
        schema = self._schemas[Health if is_health else ErrorResponse]
        return {"description": why, "content": {JSON: {"schema": schema}}, "headers": _headers(retry)}


def _event(schema: dict[str, Any]) -> dict[str, Any]:
    """One event of a stream; the last one has [DONE] for its data."""
    data = {"anyOf": [{"const": "[DONE]"}, {"type": "string", "contentMediaType": JSON, "contentSchema": schema}]}
    return {"type": "object", "properties": {"data": data}, "required": ["data"]}


def _headers(meanings: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": why, "schema": {"type": "string"}} for name, why in meanings.items()}


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
