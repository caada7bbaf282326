"""Small records with real pictures and sounds."""

import io
from typing import Any

import numpy as np
import PIL.Image
import soundfile

from phi4.data.record import Record
from phi4.processing.messages import Message, user_message


def png(seed: int) -> bytes:
    """The content of a picture's file; another one for each seed."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def wav(seed: int) -> bytes:
    """The content of a sound's file, a quarter of a second."""
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(seed).normal(scale=0.1, size=4000), 16_000, format="WAV")
    return file.getvalue()


def record(name: str, *messages: Message, **fields: Any) -> Record:
    """A record of this conversation, or of one short question and answer."""
    conversation = messages or (Message("user", f"What is {name}?"), Message("assistant", f"It is {name}."))
    provenance = {"source": "made up", "licence": "CC0-1.0", "split": "train", "task": "chat"}
    return Record(id=name, messages=conversation, **{**provenance, **fields})


def media_record(seed: int, **fields: Any) -> Record:
    """A record with a picture and a sound, named after its seed."""
    question = user_message("Name both.", images=[png(seed)], sounds=[wav(seed)])
    return record(f"media-{seed}", question, Message("assistant", f"Number {seed}."), **fields)


def contents(item: Record) -> tuple[Any, ...]:
    """All that a record holds, to be compared."""
    messages = [
        (
            message.role,
            [part if isinstance(part, str) else (part.modality, part.source) for part in message.parts],
            message.tools,
            message.tool_calls,
        )
        for message in item.messages
    ]
    return (item.id, messages, item.source, item.licence, item.split, item.task)
