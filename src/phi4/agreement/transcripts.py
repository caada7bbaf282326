"""Leaves out sounds whose transcript is not what a recogniser hears."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from datatrove.data import Document

from phi4.agreement.model import Judge
from phi4.assistant import DEFAULT_MODEL, TRANSCRIBE_PROMPT, Assistant
from phi4.data.curate.curation import BatchFilter, Reason
from phi4.data.curate.documents import answer, sounds
from phi4.data.curate.media import UNDECODABLE
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.errors import CapacityError, InputError
from phi4.processing.audio_file import load_audio
from phi4.processing.messages import Sound, user_message
from phi4.processing.sound_pieces import SAMPLE_RATE_HZ, cut_where_quiet
from phi4.score import BATCH_RECORDS, finished_answers, score_answers

# Nobody says more; a recogniser that repeats itself is stopped there.
TOKENS_PER_S = 10
LEAST_TOKENS = 16
# Of what was heard, so much is told.
HEARD_LETTERS = 200


def transcript_agreement(
    max_word_error_rate: float = 0.5, model: str | Path = DEFAULT_MODEL, packs: Sequence[str | Path] | None = None
) -> BatchFilter:
    """Leaves out documents whose last answer, the transcript, differs from what a recogniser hears in the sounds.

    The recogniser hears as `phi4 transcribe` does, long sounds in pieces of at most 30 s. Case and punctuation do not
    count. The number to ask for is well above the recogniser's own word error rate on such sounds.

    Args:
        max_word_error_rate: words to change over words of the transcript; above 1 where much more is heard.
        model: as for `Assistant.load`.
        packs: files of packs; None takes those that come with the model.
    """
    judge = Judge.of(model, packs)

    def reasons(documents: Sequence[Document]) -> list[str | Reason | None]:
        return _reasons(documents, max_word_error_rate, judge)

    return BatchFilter("transcript agreement", reasons, BATCH_RECORDS, judge.files)


def _reasons(documents: Sequence[Document], max_rate: float, judge: Judge) -> list[str | Reason | None]:
    assistant = judge.load(Sound.modality)
    found: list[str | Reason | None] = [None] * len(documents)
    heard: defaultdict[int, str] = defaultdict(str)
    requests = _requests(assistant, documents, found)
    while group := list(islice(requests, BATCH_RECORDS)):
        answers = dict(finished_answers(assistant, [request for _, request in group]))
        for number, (place, _) in enumerate(group):
            heard[place] += f" {answers[number].strip()}"
    for place, text in heard.items():
        rate = score_answers([answer(documents[place])], [text]).word_error_rate
        if found[place] is None and rate > max_rate:
            detail = f"word error rate {rate:.2f}, heard: {text.strip()[:HEARD_LETTERS]}"
            found[place] = Reason("a transcript that does not agree with its sound", detail)
    return found


def _requests(
    assistant: Assistant, documents: Sequence[Document], found: list[str | Reason | None]
) -> Iterator[tuple[int, Request]]:
    """A request for each piece of each sound, with the place of its document; one sound is decoded at a time."""
    for place, document in enumerate(documents):
        if sounds(document) and not answer(document).strip():
            found[place] = "a sound without a transcript"
            continue
        try:
            for content in sounds(document):
                samples = load_audio(content, SAMPLE_RATE_HZ)
                for start, end in cut_where_quiet(samples, SAMPLE_RATE_HZ):
                    yield place, _request(assistant, samples[start:end])
        except (InputError, CapacityError):
            found[place] = UNDECODABLE["sound"]


def _request(assistant: Assistant, samples: np.ndarray) -> Request:
    inputs = assistant.processor.prepare([user_message(TRANSCRIBE_PROMPT, sounds=[(samples, SAMPLE_RATE_HZ)])])
    max_tokens = LEAST_TOKENS + TOKENS_PER_S * len(samples) // SAMPLE_RATE_HZ
    return Request(inputs, Sampling(max_tokens=max_tokens))
