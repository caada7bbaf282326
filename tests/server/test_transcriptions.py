"""Uploaded sounds: all formats, long ones in pieces, and what is refused."""

import io
import re
from itertools import pairwise
from typing import Any

import numpy as np
import openai
import pytest

from phi4 import Assistant, Sampling
from phi4.processing.audio_file import load_audio
from phi4.processing.sound_pieces import cut_where_quiet
from phi4.server.subtitles import TimedSegment, to_srt, to_vtt
from server.running import Running, picture_bytes, sound_bytes


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model would write until its context is full."""
    monkeypatch.setattr("phi4.server.transcriptions.read_sampling", lambda *_, **__: Sampling(max_tokens=8, logprobs=0))


pytestmark = pytest.mark.usefixtures("short_answers")


def upload(server: Running, content: bytes | None = None, **fields: Any) -> Any:
    file = ("sound.wav", io.BytesIO(content or sound_bytes()))
    return server.client.audio.transcriptions.create(model="tiny", file=file, **fields)


def test_a_short_sound_is_transcribed_as_without_a_server(server: Running, assistant: Assistant) -> None:
    expected = assistant.transcribe(sound_bytes(), sampling=Sampling(max_tokens=8)).text.strip()
    assert upload(server).text == expected
    assert upload(server, response_format="text").strip() == expected
    verbose = upload(server, response_format="verbose_json", language="fr")
    assert (verbose.text, verbose.duration, verbose.language) == (expected, 1.0, "fr")
    assert verbose.segments[0].avg_logprob < 0
    assert "00:00:00,000 --> 00:00:01,000" in upload(server, response_format="srt")
    assert upload(server, response_format="vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n")


def test_a_translation_has_the_prompt_that_was_trained(server: Running, assistant: Assistant) -> None:
    answer = assistant.ask("Translate the audio to English.", sounds=[sound_bytes()], sampling=Sampling(max_tokens=8))
    with pytest.deprecated_call():  # OpenAI is about to remove it
        translated = server.client.audio.translations.create(model="tiny", file=("a.wav", sound_bytes()))
    assert translated.text == answer.text.strip()


def test_a_long_sound_is_transcribed_in_pieces(server: Running) -> None:
    verbose = upload(server, sound_bytes(65.0, 8000), response_format="verbose_json")
    edges = [(segment.start, segment.end) for segment in verbose.segments]
    assert len(edges) == 3
    assert (edges[0][0], edges[-1][1]) == (0.0, 65.0)
    assert all(before[1] == after[0] for before, after in pairwise(edges))
    assert verbose.text == " ".join(segment.text for segment in verbose.segments if segment.text)


def test_a_sound_is_cut_where_it_is_quiet() -> None:
    samples = load_audio(sound_bytes(50.0, 16000), 16000)
    samples[24 * 16000 : 24 * 16000 + 4000] = 0.0
    (_, end), (start, last) = cut_where_quiet(samples, 16000)
    assert start == end
    assert 24.0 <= end / 16000 <= 24.25
    assert last == len(samples)
    assert cut_where_quiet(samples[: 30 * 16000], 16000) == [(0, 30 * 16000)]
    assert cut_where_quiet(np.empty(0, np.float32), 16000) == [(0, 0)]


def test_subtitles_keep_their_shape_whatever_is_said() -> None:
    segments = [TimedSegment(0.0, 61.5, "a <b> & c\n\nd"), TimedSegment(3661.25, 3662.0, "e")]
    assert to_srt(segments) == (
        "1\n00:00:00,000 --> 00:01:01,500\na <b> & c\nd\n\n2\n01:01:01,250 --> 01:01:02,000\ne\n\n"
    )
    cues = to_vtt(segments).split("\n\n")
    assert cues[0] == "WEBVTT"
    assert cues[1] == "00:00:00.000 --> 00:01:01.500\na &lt;b&gt; &amp; c\nd"


@pytest.mark.parametrize(
    ("content", "fields", "complaint"),
    [
        (picture_bytes(), {}, "cannot be read as sound"),
        (b"", {}, "cannot be read as sound"),
        (None, {"response_format": "pdf"}, "response_format"),
        (None, {"prompt": "Names: Phi"}, "prompt"),
        (None, {"response_format": "verbose_json", "timestamp_granularities": ["word"]}, "words"),
        (None, {"temperature": -1.0, "stream": True}, "streamed"),
    ],
)
def test_what_cannot_be_transcribed_is_refused(
    server: Running, content: bytes | None, fields: dict[str, Any], complaint: str
) -> None:
    file = ("sound.wav", sound_bytes() if content is None else content)
    with pytest.raises(openai.BadRequestError, match=complaint):
        server.client.audio.transcriptions.create(model="tiny", file=file, **fields)


def test_a_form_without_a_file_is_refused(server: Running) -> None:
    for body, kind in ((b"{}", "application/json"), (b"--x\r\n", "multipart/form-data; boundary=x"), (b"", "")):
        reply = server.send("/v1/audio/transcriptions", body, "POST", {"content-type": kind})
        assert reply.status == 400
        assert re.search("file|form", reply.json["error"]["message"])
