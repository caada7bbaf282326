"""nano's speech records: what the planned voices say, and what was said."""

import io
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rich.progress
import soundfile

from phi4.data.record import Record, Split
from phi4.processing.audio_file import load_audio
from phi4.processing.messages import Message, user_message
from recipes.nano.packages import EASY_VQA, FLITE, KOKORO_VOICES, WORDNET, fetch
from recipes.nano.records import bucket
from recipes.nano.sentences import normalise, wordnet_examples
from recipes.nano.spoken import Kind, Utterance, utterances
from recipes.nano.voices import ENGINES, Engine, Voice, clip, clip_path

SAMPLE_RATE_HZ = 16000

# Silence is what stays 40 dB below the loudest sample.
SILENCE_SHARE = 0.01
MAX_SILENCE_SECONDS = 0.15

# The release's own request for a transcript, the only one in validation and test; half of training has others.
PROMPT = "Transcribe the audio clip into text."
OTHER_PROMPTS = (
    "Transcribe this audio.",
    "Write down what is said.",
    "What does the speaker say?",
    "Turn the speech into text.",
    "Transcribe the spoken words.",
)

MAX_EVERYDAY_WORDS = 9

ENGINE_SOURCES: dict[Engine, tuple[str, str]] = {
    "kokoro": (f"{KOKORO_VOICES.name}@{KOKORO_VOICES.version}", KOKORO_VOICES.licence),
    "flite": (f"{FLITE[0].name} {FLITE[0].version}", FLITE[0].licence),
    "espeak": (f"espeakng-loader {version('espeakng-loader')}", "GPL-3.0-or-later (the synthesiser)"),
}
TEXT_LICENCES: dict[Kind, str] = {"question": EASY_VQA.licence, "everyday": WORDNET.licence}


def speech_records(engines: Collection[Engine] = ENGINES) -> Iterator[Record]:
    """Yields the clips of all voices, each with its transcript.

    Args:
        engines: whose clips are synthesised where the cache lacks them; those of the others are left out.
    """
    synthesise_missing(plan(), engines)
    for utterance in plan():
        if path_of(utterance).is_file():
            yield speech_record(utterance, flac(trim(load_audio(path_of(utterance), SAMPLE_RATE_HZ))))


def question_clips(
    split: Split, voices: Sequence[Voice], engines: Collection[Engine] = ENGINES
) -> dict[str, list[bytes]]:
    """Returns the spoken questions about pictures.

    Args:
        split: "train" or "test", which have different voices.
        voices: whose clips are wanted.
        engines: as in `speech_records`.

    Returns:
        FLAC files for each question, which is written without its question mark.
    """
    lines = [line for line in plan() if line.kind == "question" and line.split == split and line.voice in voices]
    synthesise_missing(lines, engines)
    clips = defaultdict(list)
    for line in lines:
        if path_of(line).is_file():
            clips[line.text].append(flac(trim(load_audio(path_of(line), SAMPLE_RATE_HZ))))
    return dict(clips)


@cache
def plan() -> tuple[Utterance, ...]:
    """All utterances, with easy-vqa's questions and WordNet's examples."""
    questions = json.loads((fetch(EASY_VQA) / "easy_vqa/data/train/questions.json").read_text())
    everyday = wordnet_examples(fetch(WORDNET) / "usr/share/wordnet", MAX_EVERYDAY_WORDS)
    return tuple(utterances(sorted({question for question, *_ in questions}), everyday))


def path_of(utterance: Utterance) -> Path:
    """Where the clip of an utterance is, or would be, in the cache."""
    return clip_path(utterance.voice, utterance.text, utterance.speed)


def synthesise_missing(lines: Sequence[Utterance], engines: Collection[Engine]) -> None:
    """Synthesises what is not in the cache yet, the quick engines first. What is done stays if it is interrupted.

    Args:
        lines: what is to be there.
        engines: those that speak.
    """
    missing = [line for line in lines if line.voice.engine in engines and not path_of(line).is_file()]
    missing.sort(key=lambda line: line.voice.engine == "kokoro")
    for line in rich.progress.track(missing, "Speaking", disable=not missing):
        clip(line.voice, line.text, line.speed)


def speech_record(utterance: Utterance, content: bytes) -> Record:
    """Makes the record of one clip.

    Args:
        utterance: who says what.
        content: the clip's file.
    """
    source, licence = provenance(utterance.voice)
    if utterance.kind in TEXT_LICENCES:
        licence += f", text {TEXT_LICENCES[utterance.kind]}"
    path = path_of(utterance)
    identity = f"{path.parent.name}/{path.stem}"
    prompt = training_prompt(identity) if utterance.split == "train" else PROMPT
    return Record(
        id=identity,
        messages=transcription(content, prompt, utterance.text),
        source=source,
        licence=licence,
        split=utterance.split,
        task=utterance.kind,
    )


def provenance(voice: Voice) -> tuple[str, str]:
    """The source and the licence of what a voice says."""
    package, licence = ENGINE_SOURCES[voice.engine]
    return f"{voice.engine} {voice.name} ({package})", licence


def transcription(content: bytes, prompt: str, text: str) -> tuple[Message, Message]:
    """A request to write down a sound, and the answer."""
    return user_message(prompt, sounds=[content]), Message("assistant", normalise(text))


def training_prompt(identity: str) -> str:
    """The request in a training record: the release's in half of them, else one of the others."""
    choice = bucket(identity, 2 * len(OTHER_PROMPTS))
    return OTHER_PROMPTS[choice] if choice < len(OTHER_PROMPTS) else PROMPT


def trim(samples: np.ndarray) -> np.ndarray:
    """Shortens the silence before and after speech to 0.15 s, [samples]."""
    loud = np.flatnonzero(np.abs(samples) > SILENCE_SHARE * np.abs(samples).max())
    margin = round(MAX_SILENCE_SECONDS * SAMPLE_RATE_HZ)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin + 1]


def flac(samples: np.ndarray) -> bytes:
    """The content of a FLAC file: 16 bits at 16 kHz, from samples in [-1, 1], [samples]."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()
