"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`: an uploaded sound becomes text."""

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response

from phi4.assistant import TRANSCRIBE_PROMPT
from phi4.engine.request import Request
from phi4.processing.audio_file import load_audio
from phi4.processing.messages import user_message
from phi4.processing.sound_pieces import SAMPLE_RATE_HZ, cut_where_quiet
from phi4.server.answers import AnswerPiece, usage_headers
from phi4.server.errors import invalid_field
from phi4.server.http_io import json_response, until_hung_up
from phi4.server.media import check_sound
from phi4.server.opened import Opened, open_answers
from phi4.server.responses import TimedText, TimedTranscription, Transcription, TranscriptionUsage
from phi4.server.sampling import read_sampling
from phi4.server.schema import SamplingFields, TranscriptionForm, read_form
from phi4.server.service import Service, service_of
from phi4.server.subtitles import TimedSegment, to_srt, to_vtt

# The prompt that the release was trained to translate with (facts sheet 3.2).
TRANSLATE_PROMPT = "Translate the audio to English."
MAX_FIELDS = 20
# Nobody says this much in 30 s; a model that repeats itself would fill the context.
MAX_PIECE_TOKENS = 512

Task = Literal["transcribe", "translate"]


async def transcriptions(http_request: HttpRequest) -> Response:
    """Writes down what is said."""
    return await _answer(http_request, "transcribe")


async def translations(http_request: HttpRequest) -> Response:
    """Writes down in English what is said."""
    return await _answer(http_request, "translate")


async def _answer(http_request: HttpRequest, task: Task) -> Response:
    arrived = time.perf_counter()
    service = service_of(http_request)
    async with http_request.form(max_files=1, max_fields=MAX_FIELDS) as form:
        content, asked = await _read_upload(form)
    service.check_model(asked.model)
    pieces = _Pieces(
        service, content, asked.temperature, TRANSCRIBE_PROMPT if task == "transcribe" else TRANSLATE_PROMPT
    )
    opening = open_answers(service, pieces.prepare, stop=(), model=asked.model, arrived=arrived)
    opened = await until_hung_up(http_request, opening)
    try:
        segments = await until_hung_up(http_request, pieces.read(opened))
    finally:
        opened.close()
    usages = [one.usage for one in opened.answers]
    tokens = (sum(one.prompt_tokens for one in usages), sum(one.completion_tokens for one in usages))
    return _write(asked, task, segments, TranscriptionUsage(*tokens, sum(tokens)), usage_headers(usages[-1]))


async def _read_upload(form: FormData) -> tuple[bytes, TranscriptionForm]:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise invalid_field("the form has no file; send the sound as multipart/form-data in the field file", "file")
    texts: dict[str, str | list[str]] = {name: value for name, value in form.items() if isinstance(value, str)}
    several = "timestamp_granularities[]"
    texts |= {several: [value for value in form.getlist(several) if isinstance(value, str)]}
    return await file.read(), read_form(texts)


class _Pieces:
    """A sound in pieces of at most 30 s, each a conversation of its own; all are answered together."""

    def __init__(self, service: Service, content: bytes, temperature: float, prompt: str) -> None:
        self._service = service
        self._content = content
        self._temperature = temperature
        self._prompt = prompt
        self._places: list[tuple[int, int]] = []

    def prepare(self) -> list[Request]:
        """Decodes and cuts the sound, and makes a request for the engine of each piece."""
        check_sound(self._content, self._service.limits)
        samples = load_audio(self._content, SAMPLE_RATE_HZ)
        self._places = cut_where_quiet(samples, SAMPLE_RATE_HZ)
        return [self._request(samples[start:end]) for start, end in self._places]

    async def read(self, opened: Opened) -> list[TimedSegment]:
        """What is said in each piece."""
        said = await opened.collect()
        return [self._segment(start, end, own) for (start, end), own in zip(self._places, said, strict=True)]

    def _request(self, samples: np.ndarray) -> Request:
        inputs = self._service.processor.prepare([user_message(self._prompt, sounds=[(samples, SAMPLE_RATE_HZ)])])
        sampling = read_sampling(
            SamplingFields(temperature=self._temperature),
            max_tokens=MAX_PIECE_TOKENS,
            logprobs=0,
            num_prompt_tokens=len(inputs.token_ids),
            max_context=self._service.processor.max_tokens,
        )
        return Request(inputs, sampling)

    def _segment(self, start: int, end: int, pieces: Sequence[AnswerPiece]) -> TimedSegment:
        tokens = [piece.token for piece in pieces if piece.token.finish_reason != "stop"]
        logprobs = [token.log_probabilities.chosen for token in tokens if token.log_probabilities is not None]
        return TimedSegment(
            start / SAMPLE_RATE_HZ,
            end / SAMPLE_RATE_HZ,
            "".join(piece.text for piece in pieces).strip(),
            tuple(token.token_id for token in tokens),
            sum(logprobs) / max(1, len(logprobs)),
        )


def _write(
    asked: TranscriptionForm,
    task: Task,
    segments: Sequence[TimedSegment],
    usage: TranscriptionUsage,
    headers: dict[str, str],
) -> Response:
    text = " ".join(segment.text for segment in segments if segment.text)
    match asked.response_format:
        case "text":
            return PlainTextResponse(text + "\n", headers=headers)
        case "srt":
            return PlainTextResponse(to_srt(segments), headers=headers)
        case "vtt":
            return PlainTextResponse(to_vtt(segments), headers=headers, media_type="text/vtt")
        case "json":
            return json_response(Transcription(text, usage), headers=headers)
        case "verbose_json":
            timed = [
                TimedText(number, one.start_s, one.end_s, one.text, list(one.token_ids), one.average_logprob)
                for number, one in enumerate(segments)
            ]
            language = "english" if task == "translate" else asked.language or "unknown"
            whole = TimedTranscription(task, language, segments[-1].end_s, text, timed, usage)
            return json_response(whole, headers=headers)
