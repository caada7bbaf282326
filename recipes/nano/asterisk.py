"""Recordings of people, never trained on: Asterisk's telephone prompts, and the utterances of PocketSphinx's tests."""

import gzip
import re
from collections.abc import Iterator

from phi4.data.record import Record
from phi4.processing.audio_file import load_audio
from recipes.nano.packages import ASTERISK_SOUNDS, ASTERISK_TRANSCRIPTS, SPHINX_SOUNDS, fetch
from recipes.nano.sentences import DIGITS
from recipes.nano.speech import PROMPT, SAMPLE_RATE_HZ, flac, transcription

# Slips of the pen in the list of transcripts.
SPELLING = {
    "exclaimation": "exclamation",
    "fourtieth": "fortieth",
    "represenatives": "representatives",
    "thru": "through",
    "umute": "unmute",
    "Un-indentified": "unidentified",
    "witheld": "withheld",
}


def asterisk_records() -> Iterator[Record]:
    """Yields the prompts of Asterisk (Allison Smith's voice) whose transcript says every word."""
    transcripts = fetch(ASTERISK_TRANSCRIPTS) / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    sounds = fetch(ASTERISK_SOUNDS) / "usr/share/asterisk/sounds/en_US_f_Allison"
    for name, text in read_prompts(gzip.decompress(transcripts.read_bytes()).decode()):
        # One prompt of the list was never recorded.
        if (path := sounds / f"{name}.wav").is_file():
            yield Record(
                id=f"asterisk/{name}",
                messages=transcription(flac(load_audio(path, SAMPLE_RATE_HZ)), PROMPT, text),
                source=f"Allison Smith ({ASTERISK_SOUNDS.name} {ASTERISK_SOUNDS.version})",
                licence=ASTERISK_SOUNDS.licence,
                split="test",
                task="asterisk",
            )


def sanity_records() -> Iterator[Record]:
    """Yields ten short recordings of several people: playing cards, and sentences of a novel."""
    data = fetch(SPHINX_SOUNDS) / "usr/share/pocketsphinx/test/data"
    for folder, transcripts in (("cards", "cards.transcription"), ("librivox", "transcription")):
        for text, name in re.findall(r"<s> (.+?) </s> \((.+)\)", (data / folder / transcripts).read_text()):
            yield Record(
                id=f"pocketsphinx/{folder}/{name}",
                messages=transcription(flac(load_audio(data / folder / f"{name}.wav", SAMPLE_RATE_HZ)), PROMPT, text),
                source=f"{folder} ({SPHINX_SOUNDS.name} {SPHINX_SOUNDS.version})",
                licence=SPHINX_SOUNDS.licence,
                split="test",
                task="sanity",
            )


def read_prompts(transcripts: str) -> Iterator[tuple[str, str]]:
    """Reads the lines `name: text` of Asterisk's list, and yields those whose text says every word.

    Args:
        transcripts: the list; comments begin with a semicolon.
    """
    for line in transcripts.splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith(";") and (said := spell_out(text)) is not None:
            yield name, said


def spell_out(text: str) -> str | None:
    """What is said for a transcript, or None where it does not tell.

    Single digits are spelled out. How the voice reads longer numbers, signs and abbreviations is not known, and remarks
    in brackets are no words.
    """
    # "at [@]" shows the sign whose name is said.
    text = re.sub(r"\[.\]", "", text)
    text = re.sub(r"\b\d\b", lambda match: DIGITS[int(match[0])], text)
    for wrong, right in SPELLING.items():
        text = re.sub(rf"\b{wrong}\b", right, text)
    is_plain = re.fullmatch(r"[A-Za-z' .,:;?!\"-]+", text) is not None
    has_abbreviation = re.search(r"[A-Z]{2}|www", text) is not None
    return text.strip() if is_plain and not has_abbreviation else None
