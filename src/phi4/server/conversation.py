"""Messages in OpenAI's shape to the conversation that the model is given."""

from collections.abc import Sequence

from phi4.errors import InputError
from phi4.processing.messages import Message, Part
from phi4.processing.tools import ToolCall, read_tool_call
from phi4.server.limits import ServerLimits
from phi4.server.media import decode_base64, read_address, read_picture, read_sound
from phi4.server.schema import AudioUrlPart, ChatMessage, ContentPart, ImagePart, InputAudioPart, TextPart

# Media that are fetched for one request: each takes its time in one of few threads, which no hang-up ends.
MAX_FETCHED = 16


def read_conversation(messages: Sequence[ChatMessage], limits: ServerLimits) -> tuple[Message, ...]:
    """Reads a conversation with its media. It may fetch and decode, so it belongs into a thread of its own.

    Raises:
        InputError: a message or medium cannot be used, or too many media would have to be fetched.
        CapacityError: a medium is too large.
    """
    _check_fetched(messages)
    return tuple(_read_message(message, number, limits) for number, message in enumerate(messages, start=1))


def _check_fetched(messages: Sequence[ChatMessage]) -> None:
    parts = [part for message in messages if isinstance(message.content, list) for part in message.content]
    addresses = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
    addresses += [part.audio_url.url for part in parts if isinstance(part, AudioUrlPart)]
    num_fetched = sum(address[:5].lower() != "data:" for address in addresses)
    if num_fetched > MAX_FETCHED:
        raise InputError(f"{num_fetched} media would have to be fetched, and at most {MAX_FETCHED} are; send data URIs")


def _read_message(message: ChatMessage, number: int, limits: ServerLimits) -> Message:
    content = message.content or ""
    return Message(
        role="system" if message.role == "developer" else message.role,
        content=content if isinstance(content, str) else tuple(_read_part(part, limits) for part in content),
        tool_calls=tuple(_read_call(call, number) for call in message.tool_calls or ()),
    )


def _read_part(part: ContentPart, limits: ServerLimits) -> Part:
    match part:
        case TextPart():
            return part.text
        case ImagePart():
            return read_picture(part.image_url.url, limits)
        case InputAudioPart():
            return read_sound(decode_base64(part.input_audio.data), limits)
        case AudioUrlPart():
            return read_sound(read_address(part.audio_url.url, limits), limits)


def _read_call(raw: dict[str, object], number: int) -> ToolCall:
    call = read_tool_call(raw)
    if call is None:
        raise InputError(f"message {number} has a tool call without a name and arguments that are a JSON object: {raw}")
    return call
