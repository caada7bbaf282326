"""`POST /v1/completions`: prompts as text or token ids, and how probable each of their tokens is."""

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from msgspec import UNSET
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from phi4.engine.request import Request
from phi4.engine.sampler import LogProbabilities
from phi4.engine.sampling import MAX_LOGPROBS
from phi4.inputs import ModelInputs
from phi4.server.answers import AnswerPiece, Answers, usage_headers, usage_of
from phi4.server.errors import invalid_field
from phi4.server.http_io import DONE, EventStream, event_of, json_response, read_json_body, until_hung_up
from phi4.server.logprobs import completion_logprobs
from phi4.server.opened import Opened, open_answers
from phi4.server.prompt_scores import score_prompt
from phi4.server.responses import Completion, CompletionChoice, PromptTokensDetails, Usage
from phi4.server.sampling import read_sampling
from phi4.server.schema import CompletionRequest, read_request
from phi4.server.service import Service, service_of

# OpenAI's default for completions.
DEFAULT_MAX_TOKENS = 16


@dataclass(frozen=True)
class _Prompt:
    """One of the prompts, ready for the engine; with `echo`, what the model thought of its tokens."""

    inputs: ModelInputs
    scores: Sequence[LogProbabilities | None] | None


async def completions(http_request: HttpRequest) -> Response:
    """Continues prompts. Control tokens in them count: they are the client's own, as for a base model."""
    arrived = time.perf_counter()
    service = service_of(http_request)
    asked = read_request(CompletionRequest, await read_json_body(http_request))
    service.check_model(asked.model)
    if asked.logprobs is not None and not 0 <= asked.logprobs <= MAX_LOGPROBS:
        raise invalid_field(f"logprobs must be from 0 to {MAX_LOGPROBS}, not {asked.logprobs}", "logprobs")
    writer = _Writer(service, asked)
    if asked.echo and asked.max_tokens == 0:
        return await until_hung_up(http_request, _score_only(service, writer))
    opening = open_answers(service, writer.prepare, stop=asked.stop_strings, model=asked.model, arrived=arrived)
    opened = await until_hung_up(http_request, opening)
    if asked.stream:
        return EventStream(writer.stream(opened), usage_headers(_total(opened.answers)), opened.close)
    try:
        completion = await until_hung_up(http_request, writer.complete(opened))
    finally:
        opened.close()
    return json_response(completion, headers=usage_headers(_total(opened.answers)))


async def _score_only(service: Service, writer: "_Writer") -> Response:
    with service.admission.enter():
        await service.prepare(writer.prepare)
    return json_response(writer.echo())


class _Writer:
    """Reads the prompts of one request, and writes what becomes of them in OpenAI's shapes."""

    def __init__(self, service: Service, asked: CompletionRequest) -> None:
        self._service = service
        self._tokenizer = service.processor.tokenizer
        self._asked = asked
        self._prompts: list[_Prompt] = []
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = asked.model or service.model_id

    def prepare(self) -> list[Request]:
        """Makes a request for the engine of each prompt; it may run the model, so it belongs into a thread."""
        self._prompts = [self._read_prompt(prompt) for prompt in self._asked.prompts]
        asked, max_context = self._asked, self._service.processor.max_tokens
        if asked.max_tokens == 0 and asked.echo:
            return []
        return [
            Request(
                prompt.inputs,
                read_sampling(
                    asked,
                    max_tokens=DEFAULT_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens,
                    logprobs=asked.logprobs,
                    num_prompt_tokens=len(prompt.inputs.token_ids),
                    max_context=max_context,
                    default_temperature=self._service.default_temperature,
                ),
            )
            for prompt in self._prompts
        ]

    async def complete(self, opened: Opened) -> Completion:
        """The whole completions."""
        n = opened.answers[0].num_choices
        pieces = await opened.collect()
        choices = [self._whole_choice(index, own, self._prompts[index // n]) for index, own in enumerate(pieces)]
        return Completion(self._id, self._created, self._model, choices, usage=_total(opened.answers))

    async def stream(self, opened: Opened) -> AsyncGenerator[bytes, None]:
        """The completions as events, chunk by chunk."""
        async for index, piece in opened.pieces:
            logprobs = None if self._asked.logprobs is None else completion_logprobs(self._tokenizer, _tokens([piece]))
            yield self._event(CompletionChoice(index, piece.text, piece.finish_reason, logprobs))
        if self._asked.stream_options and self._asked.stream_options.include_usage:
            usage = _total(opened.answers)
            yield event_of(Completion(self._id, self._created, self._model, [], usage=usage))
        yield DONE

    def echo(self) -> Completion:
        """The prompts themselves, with what the model thought of them."""
        choices = [self._whole_choice(index, [], prompt) for index, prompt in enumerate(self._prompts)]
        adapter_free = [usage_of(prompt.inputs, 0, None, None) for prompt in self._prompts]
        return Completion(self._id, self._created, self._model, choices, usage=_add(adapter_free))

    def _read_prompt(self, prompt: str | list[int]) -> _Prompt:
        processor = self._service.processor
        inputs = processor.prepare_prompt(prompt) if isinstance(prompt, str) else processor.prepare_ids(prompt)
        if not self._asked.echo or self._asked.logprobs is None:
            return _Prompt(inputs, None)
        return _Prompt(inputs, score_prompt(self._service.engine.model, inputs, self._asked.logprobs))

    def _whole_choice(self, index: int, pieces: Sequence[AnswerPiece], prompt: _Prompt) -> CompletionChoice:
        echoed = self._tokenizer.decode(prompt.inputs.token_ids, skip_special=False) if self._asked.echo else ""
        text = echoed + "".join(piece.text for piece in pieces)
        reason = pieces[-1].finish_reason if pieces else "length"
        if self._asked.logprobs is None:
            return CompletionChoice(index, text, reason)
        scored = zip(prompt.inputs.token_ids, prompt.scores or (), strict=prompt.scores is not None)
        logprobs = completion_logprobs(self._tokenizer, [*scored, *_tokens(pieces)])
        return CompletionChoice(index, text, reason, logprobs)

    def _event(self, choice: CompletionChoice) -> bytes:
        return event_of(Completion(self._id, self._created, self._model, [choice], usage=UNSET))


def _tokens(pieces: Sequence[AnswerPiece]) -> list[tuple[int, LogProbabilities | None]]:
    """Tokens of an answer but the end token, which is no part of it."""
    tokens = [piece.token for piece in pieces]
    return [(token.token_id, token.log_probabilities) for token in tokens if token.finish_reason != "stop"]


def _total(answers: Sequence[Answers]) -> Usage:
    return _add([one.usage for one in answers])


def _add(usages: Sequence[Usage]) -> Usage:
    """Usage of all prompts; none of them has media, so all have the same adapter: none."""
    prompt_tokens = sum(usage.prompt_tokens for usage in usages)
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    return Usage(
        prompt_tokens, completion_tokens, prompt_tokens + completion_tokens, PromptTokensDetails(), usages[-1].phi4
    )
