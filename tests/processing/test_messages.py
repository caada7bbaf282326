"""OpenAI-style messages: what is read and what is refused."""

from typing import Any

import pytest

from phi4.errors import InputError
from phi4.processing.messages import Image, Message, Sound, read_messages
from phi4.processing.tools import ToolCall


def test_text_parts_calls_and_tools_are_read() -> None:
    parts = [
        {"type": "image", "image": "cat.png"},
        {"type": "text", "text": "And this?"},
        {"type": "audio", "audio": b"RIFF"},
    ]
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC"}'}}
    system, user, assistant, tool = read_messages(
        [
            {"role": "system", "content": "S", "tools": "[]"},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "12:00", "tool_call_id": "1", "name": "now"},
        ]
    )
    assert system == Message("system", "S", tools="[]")
    image, text, sound = user.parts
    assert isinstance(image, Image)
    assert isinstance(sound, Sound)
    assert (image.source, text, sound.source) == ("cat.png", "And this?", b"RIFF")
    assert assistant.tool_calls == (ToolCall("now", {"zone": "UTC"}),)
    assert tool.parts == ("12:00",)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ("Hi", "list of messages"),
        (["Hi"], 'with a "role"|no.*role|is not an object'),
        ([{"role": "<|user|>", "content": ""}], "role"),
        ([{"role": "user", "content": 3}], "text or a list of parts"),
        ([{"role": "user", "content": [{"type": "video", "video": ""}]}], "'video'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "'image'"),
        ([{"role": "user", "content": ["Hi"]}], "'Hi'"),
        ([{"role": "user", "content": "", "contents": ""}], "contents"),
        ([{"role": "user", "content": "", "tools": "[]"}], "only a system message"),
        ([{"role": "system", "content": "", "tools": []}], "JSON text"),
        ([{"role": "user", "tool_calls": [{"name": "f", "arguments": {}}]}], "only an assistant"),
        ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "["}]}], "tool call"),
        ([{"role": "assistant", "tool_calls": 5}], "tool_calls must be a list"),
    ],
)
def test_malformed_messages_are_refused(raw: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read_messages(raw)
