"""`POST /v1/chat/completions`."""

import time
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import msgspec
from msgspec import UNSET
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from phi4.engine.constraint import Constraint
from phi4.engine.request import Request
from phi4.processing.tools import read_tools
from phi4.server.answers import AnswerPiece, usage_headers
from phi4.server.chat_text import StreamedText, finish_reason, whole_message
from phi4.server.conversation import read_conversation
from phi4.server.http_io import DONE, EventStream, event_of, json_response, read_json_body, until_hung_up
from phi4.server.logprobs import chat_logprob
from phi4.server.opened import Opened, open_answers
from phi4.server.responses import ChatChoice, ChatChunk, ChatCompletion, ChatLogprobs, ChunkChoice, Delta
from phi4.server.sampling import read_sampling
from phi4.server.schema import ChatRequest, read_request
from phi4.server.service import Service, service_of
from phi4.server.tool_choice import forced_call


async def chat_completions(http_request: HttpRequest) -> Response:
    """Answers a conversation, as a whole or as a stream."""
    arrived = time.perf_counter()
    service = service_of(http_request)
    asked = read_request(ChatRequest, await read_json_body(http_request))
    service.check_model(asked.model)
    chat = _Chat(service, asked)
    opening = open_answers(service, chat.prepare, stop=asked.stop_strings, model=asked.model, arrived=arrived)
    # The headers of a stream wait for its first token: until then an error still has a status of its own.
    opened = await until_hung_up(http_request, opening)
    headers = usage_headers(opened.answers[0].usage)
    if asked.stream:
        return EventStream(chat.stream(opened), headers, opened.close)
    try:
        completion = await until_hung_up(http_request, chat.complete(opened))
    finally:
        opened.close()
    return json_response(completion, headers=usage_headers(completion.usage))


def _grammar(service: Service, asked: ChatRequest) -> Callable[[], Constraint] | None:
    """What `response_format` holds the answer to, or else the tools that it may call."""
    grammars = service.assistant.grammars
    if asked.response_format is None or asked.response_format.type == "text":
        return grammars.offered_calls(read_tools(asked.tools)) if _has_tools(asked) else None
    if asked.response_format.json_schema is None:
        return grammars.json_object()
    return grammars.json_schema(asked.response_format.json_schema.schema)


def _has_tools(asked: ChatRequest) -> bool:
    """Whether the model is told of tools, and calls are looked for."""
    return bool(asked.tools) and asked.tool_choice != "none"


class _Chat:
    """Reads one request, and writes the answers to it in OpenAI's shapes."""

    def __init__(self, service: Service, asked: ChatRequest) -> None:
        self._service = service
        self._tokenizer = service.processor.tokenizer
        self._model = asked.model or service.model_id
        self._asked = asked
        self._opener = ""
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def prepare(self) -> list[Request]:
        """Reads messages and media, and makes a request for the engine; this belongs into a thread."""
        service, asked = self._service, self._asked
        forced = forced_call(asked, self._tokenizer, service.assistant.grammars)
        tools = asked.tools if _has_tools(asked) else None
        inputs = service.processor.prepare(read_conversation(asked.messages, service.limits), tools)
        if forced is not None:
            self._opener = forced.opener
            inputs = replace(inputs, token_ids=(*inputs.token_ids, *forced.token_ids))
        sampling = read_sampling(
            asked,
            max_tokens=asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens,
            logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
            num_prompt_tokens=len(inputs.token_ids),
            max_context=service.processor.max_tokens,
            default_temperature=service.default_temperature,
        )
        # What was sent may be large, and the answer may take long.
        self._asked = msgspec.structs.replace(asked, messages=[])
        return [Request(inputs, sampling, constrain=forced.constrain if forced else _grammar(service, asked))]

    async def complete(self, opened: Opened) -> ChatCompletion:
        """The whole answers."""
        (answers,) = opened.answers
        choices = [self._whole_choice(index, own) for index, own in enumerate(await opened.collect())]
        return ChatCompletion(self._id, self._created, self._model, choices, answers.usage)

    async def stream(self, opened: Opened) -> AsyncGenerator[bytes, None]:
        """The answers as events, chunk by chunk."""
        (answers,) = opened.answers
        texts = [StreamedText(_has_tools(self._asked), self._opener) for _ in range(answers.num_choices)]
        for choice in range(answers.num_choices):
            yield self._event([ChunkChoice(choice, Delta(role="assistant", content=""))])
        async for choice, piece in opened.pieces:
            deltas = texts[choice].push(piece.text, is_last=piece.finish_reason is not None)
            logprobs = self._logprobs([piece])
            if logprobs and not deltas:
                deltas = [Delta(content="")]
            for delta in deltas:
                yield self._event([ChunkChoice(choice, delta, logprobs=logprobs)])
                logprobs = None
            if piece.finish_reason is not None:
                yield self._event([ChunkChoice(choice, Delta(), texts[choice].finish_reason(piece.finish_reason))])
        if self._asked.stream_options and self._asked.stream_options.include_usage:
            yield event_of(ChatChunk(self._id, self._created, self._model, [], usage=answers.usage))
        yield DONE

    def _whole_choice(self, index: int, pieces: list[AnswerPiece]) -> ChatChoice:
        message = whole_message(self._opener + "".join(piece.text for piece in pieces), _has_tools(self._asked))
        reason = finish_reason(pieces[-1].finish_reason or "stop", has_calls=message.tool_calls is not UNSET)
        return ChatChoice(index, message, reason, self._logprobs(pieces))

    def _logprobs(self, pieces: list[AnswerPiece]) -> ChatLogprobs | None:
        """Of all tokens but the end token, which is no part of the answer."""
        content = [
            chat_logprob(self._tokenizer, piece.token.token_id, piece.token.log_probabilities)
            for piece in pieces
            if piece.token.log_probabilities is not None and piece.token.finish_reason != "stop"
        ]
        return ChatLogprobs(content) if content else None

    def _event(self, choices: list[ChunkChoice]) -> bytes:
        return event_of(ChatChunk(self._id, self._created, self._model, choices))
