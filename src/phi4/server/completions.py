"""`POST /v1/completions`: prompts as text or token ids, and how probable each of their tokens is."""

import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence

from msgspec import UNSET
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from phi4.engine.request import Request
from phi4.engine.sampler import LogProbabilities
from phi4.engine.sampling import MAX_LOGPROBS, Sampling
from phi4.server.answers import AnswerPiece, Answers, usage_headers, usage_of
from phi4.server.errors import invalid_field
from phi4.server.http_io import DONE, EventStream, event_of, json_response, read_json_body, until_hung_up
from phi4.server.logprobs import TextOffsets, completion_logprobs
from phi4.server.opened import Opened, open_answers
from phi4.server.responses import Completion, CompletionChoice, PromptTokensDetails, Usage
from phi4.server.sampling import read_sampling
from phi4.server.schema import CompletionRequest, read_request
from phi4.server.service import Service, service_of

# OpenAI's default for completions.
DEFAULT_MAX_TOKENS = 16


async def completions(http_request: HttpRequest) -> Response:
    """Continues prompts. Control tokens in them count: they are the client's own, as for a base model."""
    arrived = time.perf_counter()
    service = service_of(http_request)
    asked = read_request(CompletionRequest, await read_json_body(http_request))
    service.check_model(asked.model)
    if asked.logprobs is not None and not 0 <= asked.logprobs <= MAX_LOGPROBS:
        raise invalid_field(f"logprobs must be from 0 to {MAX_LOGPROBS}, not {asked.logprobs}", "logprobs")
    writer = _Writer(service, asked)
    opening = open_answers(service, writer.prepare, stop=asked.stop_strings, model=asked.model, arrived=arrived)
    opened = await until_hung_up(http_request, opening)
    if asked.stream:
        return EventStream(writer.stream(opened), usage_headers(writer.usage(opened)), opened.close)
    try:
        completion = await until_hung_up(http_request, writer.complete(opened))
    finally:
        opened.close()
    return json_response(completion, headers=usage_headers(writer.usage(opened)))


class _Writer:
    """Reads the prompts of one request, and writes what becomes of them in OpenAI's shapes."""

    def __init__(self, service: Service, asked: CompletionRequest) -> None:
        self._service = service
        self._tokenizer = service.processor.tokenizer
        self._asked = asked
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = asked.model or service.model_id
        # The engine generates at least one token; whoever wants none, to score prompts, does not get to see it.
        self._only_echo = asked.echo is True and asked.max_tokens == 0

    def prepare(self) -> list[Request]:
        """Makes a request for the engine of each prompt."""
        return [self._read_prompt(prompt) for prompt in self._asked.prompts]

    async def complete(self, opened: Opened) -> Completion:
        """The whole completions."""
        pieces = await opened.collect()
        n = opened.answers[0].num_choices
        choices = [self._whole_choice(index, own, opened.answers[index // n]) for index, own in enumerate(pieces)]
        return Completion(self._id, self._created, self._model, choices, usage=self.usage(opened))

    async def stream(self, opened: Opened) -> AsyncGenerator[bytes, None]:
        """The completions as events, chunk by chunk."""
        offsets = defaultdict[int, TextOffsets](lambda: TextOffsets(self._tokenizer))
        async for index, piece in opened.pieces:
            logprobs = None
            if self._asked.logprobs is not None:
                logprobs = completion_logprobs(self._tokenizer, _tokens([piece]), offsets[index])
            yield self._event(CompletionChoice(index, piece.text, piece.finish_reason, logprobs))
        if self._asked.stream_options and self._asked.stream_options.include_usage:
            yield event_of(Completion(self._id, self._created, self._model, [], usage=self.usage(opened)))
        yield DONE

    def usage(self, opened: Opened) -> Usage:
        """Of all prompts; none of them has media, so all have the same adapter: none."""
        if self._only_echo:
            return _add([usage_of(one.request.inputs, 0, None, None) for one in opened.answers])
        return _add([one.usage for one in opened.answers])

    def _read_prompt(self, prompt: str | list[int]) -> Request:
        asked, processor = self._asked, self._service.processor
        inputs = processor.prepare_prompt(prompt) if isinstance(prompt, str) else processor.prepare_ids(prompt)
        prompt_logprobs = asked.logprobs if asked.echo else None
        if self._only_echo:
            sampling = Sampling(max_tokens=1, n=1 if asked.n is None else asked.n)
            return Request(inputs, sampling, prompt_logprobs=prompt_logprobs)
        sampling = read_sampling(
            asked,
            max_tokens=DEFAULT_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens,
            logprobs=asked.logprobs,
            num_prompt_tokens=len(inputs.token_ids),
            max_context=processor.max_tokens,
            default_temperature=self._service.default_temperature,
        )
        return Request(inputs, sampling, prompt_logprobs=prompt_logprobs)

    def _whole_choice(self, index: int, pieces: Sequence[AnswerPiece], answers: Answers) -> CompletionChoice:
        own = [] if self._only_echo else pieces
        prompt = answers.request.inputs.token_ids if self._asked.echo else ()
        text = self._tokenizer.decode(prompt, skip_special=False) + "".join(piece.text for piece in own)
        reason = own[-1].finish_reason if own else "length"
        if self._asked.logprobs is None:
            return CompletionChoice(index, text, reason)
        scored = zip(prompt, answers.prompt_log_probabilities, strict=True)
        tokens = [*scored, *_tokens(own)]
        logprobs = completion_logprobs(self._tokenizer, tokens, TextOffsets(self._tokenizer))
        return CompletionChoice(index, text, reason, logprobs)

    def _event(self, choice: CompletionChoice) -> bytes:
        return event_of(Completion(self._id, self._created, self._model, [choice], usage=UNSET))


def _tokens(pieces: Sequence[AnswerPiece]) -> list[tuple[int, LogProbabilities | None]]:
    """Tokens of an answer, an end token too: it is no part of the text, but it was chosen.

    Harnesses rely on it: of an echoed prompt with one more token, they leave out the last entry.
    """
    return [(piece.token.token_id, piece.token.log_probabilities) for piece in pieces]


def _add(usages: Sequence[Usage]) -> Usage:
    prompt_tokens = sum(usage.prompt_tokens for usage in usages)
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    details = PromptTokensDetails(cached_tokens=sum(usage.prompt_tokens_details.cached_tokens for usage in usages))
    return Usage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens, details, usages[-1].phi4)
