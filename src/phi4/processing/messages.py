"""Conversations: messages of text and media, as Python objects and as OpenAI-style dictionaries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import PIL.Image

from phi4.errors import InputError
from phi4.processing.tools import ToolCall, read_tool_call

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)

ImageSource = str | Path | bytes | PIL.Image.Image
SoundSource = str | Path | bytes | tuple[np.ndarray, int]


@dataclass(frozen=True, eq=False)
class Image:
    """A picture in a message.

    Attributes:
        source: path of a file, content of a file, or a Pillow image.
    """

    modality: ClassVar[str] = "vision"
    source: ImageSource


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound in a message.

    Attributes:
        source: path of a file, content of a file, or samples [samples] or [samples, channels] and their rate in Hz.
    """

    modality: ClassVar[str] = "speech"
    source: SoundSource


@dataclass(frozen=True, eq=False)
class Signal:
    """A medium of a modality from outside in a message.

    Attributes:
        modality: the name of the modality.
        source: whatever that modality prepares.
    """

    modality: str
    source: Any


MediumPart = Image | Sound | Signal
Part = str | MediumPart


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: who speaks; "tool" is the result of a function call.
        content: text, or texts and media in the order in which the model is to see them.
        tools: JSON text of the functions on offer, in a system message only (facts sheet 3.1).
        tool_calls: calls that an assistant message asked for, written behind its content.
    """

    role: Role
    content: str | tuple[Part, ...] = ""
    tools: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"a message's role is {self.role!r}; it must be one of {', '.join(ROLES)}")
        if self.tools is not None and self.role != "system":
            raise InputError(f"a {self.role} message has tools; only a system message can offer them")
        if self.tool_calls and self.role != "assistant":
            raise InputError(f"a {self.role} message has tool_calls; only an assistant message can hold them")

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as a sequence, whichever way it was given."""
        return (self.content,) if isinstance(self.content, str) else self.content

    @property
    def media(self) -> "tuple[MediumPart, ...]":
        """The parts that are not text."""
        return tuple(part for part in self.parts if not isinstance(part, str))


def user_message(text: str, images: Sequence[ImageSource] = (), sounds: Sequence[SoundSource] = ()) -> Message:
    """A user's turn in the trained order: pictures, sounds, text (facts sheet 3.2)."""
    return Message("user", (*map(Image, images), *map(Sound, sounds), text))


def read_messages(raw: Any) -> tuple[Message, ...]:
    """Reads OpenAI-style messages; what is a `Message` already stays one.

    `content` is a string, null or a list of parts: `{"type": "text", "text": TEXT}`,
    `{"type": "image", "image": SOURCE}`, `{"type": "audio", "audio": SOURCE}` or
    `{"type": "signal", "modality": NAME, "signal": SOURCE}`. `tool_call_id` and `name` are accepted and not shown to
    the model, since the released layout has no place for them.

    Raises:
        InputError: a message or part is not of this form.
    """
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise InputError(f"a conversation must be a list of messages, not a {type(raw).__name__}")
    return tuple(_read_message(message, number) for number, message in enumerate(raw, start=1))


def _read_message(raw: Any, number: int) -> Message:
    if isinstance(raw, Message):
        return raw
    if not isinstance(raw, Mapping) or "role" not in raw:
        raise InputError(f'message {number} is not an object with a "role": {raw!r}')
    unknown = set(raw) - {"role", "content", "tools", "tool_calls", "tool_call_id", "name"}
    if unknown:
        raise InputError(f"message {number} has unknown fields {sorted(unknown)}")
    tools = raw.get("tools")
    if tools is not None and not isinstance(tools, str):
        raise InputError(f"message {number}: tools must be JSON text, not a {type(tools).__name__}")
    calls = raw.get("tool_calls") or ()
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise InputError(f"message {number}: tool_calls must be a list, not a {type(calls).__name__}")
    return Message(
        role=raw["role"],
        content=_read_content(raw.get("content"), number),
        tools=tools,
        tool_calls=tuple(_read_call(call, number) for call in calls),
    )


def _read_content(raw: Any, number: int) -> str | tuple[Part, ...]:
    if raw is None:
        return ""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, Sequence):
        raise InputError(f"message {number}: content must be text or a list of parts, not a {type(raw).__name__}")
    return tuple(_read_part(part, number) for part in raw)


def _read_part(raw: Any, number: int) -> Part:
    match raw:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image", "image": source}:
            return Image(source)
        case {"type": "audio", "audio": source}:
            return Sound(source)
        case {"type": "signal", "modality": str(modality), "signal": source}:
            return Signal(modality, source)
    kind = raw.get("type") if isinstance(raw, Mapping) else raw
    raise InputError(
        f"message {number} has a part of type {kind!r} that cannot be read; a part is text with a text, "
        "image with an image, audio with an audio, or signal with a modality and a signal"
    )


def _read_call(raw: Any, number: int) -> ToolCall:
    call = read_tool_call(raw)
    if call is None:
        raise InputError(
            f'message {number} has a tool call without a "name" and "arguments" that are an object: {raw!r}'
        )
    return call
