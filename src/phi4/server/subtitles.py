"""Timed text in the two formats that players read."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TimedSegment:
    """What is said in a part of a sound.

    Attributes:
        start_s: where it begins.
        end_s: where it ends.
        text: what is said.
        token_ids: its tokens.
        average_logprob: mean log-probability of those; 0 if there are none.
    """

    start_s: float
    end_s: float
    text: str
    token_ids: tuple[int, ...] = ()
    average_logprob: float = 0.0


def to_srt(segments: Sequence[TimedSegment]) -> str:
    """SubRip."""
    return "".join(
        f"{number}\n{_clock(one.start_s, ',')} --> {_clock(one.end_s, ',')}\n{_one_block(one.text)}\n\n"
        for number, one in enumerate(segments, start=1)
    )


def to_vtt(segments: Sequence[TimedSegment]) -> str:
    """WebVTT, in which `&` and `<` begin something else."""
    cues = (
        f"{_clock(one.start_s, '.')} --> {_clock(one.end_s, '.')}\n"
        f"{_one_block(one.text).replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}\n\n"
        for one in segments
    )
    return "WEBVTT\n\n" + "".join(cues)


def _one_block(text: str) -> str:
    """An empty line would end the subtitle."""
    return "\n".join(line for line in text.strip().splitlines() if line.strip())


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    return (
        f"{milliseconds // 3_600_000:02}:{milliseconds // 60_000 % 60:02}:{milliseconds // 1000 % 60:02}"
        f"{point}{milliseconds % 1000:03}"
    )
