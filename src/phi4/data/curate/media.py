"""Filters for pictures with captions and sounds with transcripts. Documents without such media are let through.

What cannot be decoded is left out by the first of them that has to, with the reason that `decodable` gives.
"""

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import PIL.Image
import soundfile
from datatrove.data import Document

from phi4.data.curate.curation import Filter
from phi4.data.curate.decontaminate import words_of
from phi4.data.curate.documents import answer, pictures, sounds
from phi4.errors import CapacityError, InputError
from phi4.processing.audio_file import load_audio
from phi4.processing.image_file import load_image

# A sound is looked at in pieces of this length.
FRAME_S = 0.02
# Samples this close to full scale count as cut off.
CLIPPED = 0.999
UNDECODABLE = {kind: f"a {kind} that cannot be decoded" for kind in ("picture", "sound")}


def decodable() -> Filter:
    """Leaves out documents with a picture or sound that the processor could not read, empty files among them."""

    def reason(document: Document) -> str | None:
        for content in pictures(document):
            _picture(content)
        for content in sounds(document):
            _sound(content)
        return None

    return _media_filter("decodable media", reason)


def picture_size(min_side_px: int = 64, max_aspect: float = 4.0) -> Filter:
    """Leaves out documents with a small or narrow picture.

    Args:
        min_side_px: of the shorter side.
        max_aspect: longer side over shorter side.
    """

    def reason(document: Document) -> str | None:
        for content in pictures(document):
            width, height = _picture(content).size
            if min(width, height) < min_side_px:
                return "a picture that is too small"
            if max(width, height) > max_aspect * min(width, height):
                return "a picture that is too narrow"
        return None

    return _media_filter("picture size", reason)


def answer_length(min_words: int = 3, max_words: int = 200) -> Filter:
    """Leaves out documents whose last answer, such as a caption, has too few or too many words."""

    def reason(document: Document) -> str | None:
        count = len(words_of(answer(document)))
        if count < min_words:
            return "an answer that is too short"
        return "an answer that is too long" if count > max_words else None

    return Filter("length of the answer", reason)


def duration(min_s: float = 0.5, max_s: float = 40.0) -> Filter:
    """Leaves out documents with a sound that is too short or too long, in seconds."""

    def reason(document: Document) -> str | None:
        for content in sounds(document):
            seconds = _seconds(content)
            if seconds < min_s:
                return "a sound that is too short"
            if seconds > max_s:
                return "a sound that is too long"
        return None

    return _media_filter("duration", reason)


def silence(max_share: float = 0.6, below_db: float = -50.0) -> Filter:
    """Leaves out documents with a sound that is silent for too much of its time.

    Args:
        max_share: of pieces of 20 ms, 0 to 1.
        below_db: level of a silent piece, in decibels to full scale (root mean square).
    """

    def reason(document: Document) -> str | None:
        for content in sounds(document):
            if _silent_share(*_sound(content), below_db) > max_share:
                return "a sound that is mostly silent"
        return None

    return _media_filter("silence", reason)


def clipping(max_share: float = 0.001) -> Filter:
    """Leaves out documents with a sound in which more samples than that share, 0 to 1, stand at full scale."""

    def reason(document: Document) -> str | None:
        for content in sounds(document):
            samples, _ = _sound(content)
            if len(samples) and float((np.abs(samples) >= CLIPPED).mean()) > max_share:
                return "a sound that is clipped"
        return None

    return _media_filter("clipping", reason)


def speaking_rate(min_words_per_s: float = 0.5, max_words_per_s: float = 6.0) -> Filter:
    """Leaves out documents whose answer has too few or too many words for the length of their sounds."""

    def reason(document: Document) -> str | None:
        seconds = sum(_seconds(content) for content in sounds(document))
        if not sounds(document):
            return None
        rate = len(words_of(answer(document))) / max(seconds, FRAME_S)
        if rate < min_words_per_s:
            return "too few words for the sound"
        return "too many words for the sound" if rate > max_words_per_s else None

    return _media_filter("speaking rate", reason)


class _UndecodableError(Exception):
    """A medium that no filter can look at; the message is the reason to leave its document out."""

    def __init__(self, kind: str, content: bytes) -> None:
        super().__init__(UNDECODABLE[kind] if content else f"a {kind} of zero bytes")


def _media_filter(name: str, reason: Callable[[Document], str | None]) -> Filter:
    def reason_or_undecodable(document: Document) -> str | None:
        try:
            return reason(document)
        except _UndecodableError as error:
            return str(error)

    return Filter(name, reason_or_undecodable)


@lru_cache(maxsize=1)
def _picture(content: bytes) -> PIL.Image.Image:
    try:
        return load_image(content)
    except InputError as error:
        raise _UndecodableError("picture", content) from error


@lru_cache(maxsize=1)
def _sound(content: bytes) -> tuple[np.ndarray, int]:
    """Samples, fp32 [samples], at the rate in Hz that they were recorded with: resampling would hide clipping."""
    try:
        rate = soundfile.info(io.BytesIO(content)).samplerate
        return load_audio(content, rate), rate
    except (InputError, CapacityError, soundfile.SoundFileError) as error:
        raise _UndecodableError("sound", content) from error


def _seconds(content: bytes) -> float:
    samples, rate = _sound(content)
    return len(samples) / rate


def _silent_share(samples: np.ndarray, rate: int, below_db: float) -> float:
    size = max(1, round(FRAME_S * rate))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    if not len(frames):
        return 1.0
    levels = np.sqrt(np.square(frames, dtype=np.float64).mean(axis=1))
    return float((levels < 10 ** (below_db / 20)).mean())
