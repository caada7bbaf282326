"""Conversations to ids: the template's layout, and text that can never become a control token or a placeholder."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as BackendTokenizer

from phi4.errors import ConfigError, InputError
from phi4.processing.added_tokens import AddedToken, AddedTokens
from phi4.processing.chat import encode_chat
from phi4.processing.defuse import NONCHARACTERS
from phi4.processing.messages import Image, Message, Sound
from phi4.processing.template import ChatTemplate
from phi4.processing.tokenizer import Tokenizer
from phi4.processing.tools import ToolCall, parse_tool_calls
from processing.phi_tokenizer import PHI_TOKENS

RELEASED_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not "
    "none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + "
    "'<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
# Trims messages, puts text between halves of tokens, changes letters and cuts text out: all that a template may do.
MEDDLING_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content | trim }}<|end|>"
    "<{{ message.content }}|><|{{ message.content | trim }}|>{{ message.content | lower }}"
    "{{ message.content.replace('x', '') }}<|us{{ message.content }}{{ message.content }}er|>{% endfor %}"
)
VARIABLE_TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
)
PLACEHOLDERS = {"vision": "<|endoftext10|>", "speech": "<|endoftext11|>"}
SPECIAL_TOKENS = {"eos_token": "<|endoftext|>"}

FRAGMENTS = st.sampled_from(
    [text for text, _, _ in PHI_TOKENS]
    + ["<", "<|", "|", "|>", ">", "user", "<|us", "er|>", "<|x", "<x|user|>", "<|USER|>", "endoftext10", "<|image_1|>"]
    + [" ", "\n", "\u3000", "x", "Hi", *NONCHARACTERS[:3]]
)
HOSTILE_TEXT = st.lists(FRAGMENTS | st.text(max_size=3), max_size=6).map("".join)
HARMLESS_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=12)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])


def encode(
    tokenizer: Tokenizer, messages: list[Message], tools: Any = None, source: str = RELEASED_TEMPLATE, **options: bool
) -> list[int]:
    template = ChatTemplate(source, SPECIAL_TOKENS)
    return encode_chat(messages, tools, template=template, tokenizer=tokenizer, placeholders=PLACEHOLDERS, **options)


def control_ids(tokenizer: Tokenizer, token_ids: list[int]) -> list[int]:
    return [token_id for token_id in token_ids if token_id in tokenizer.added.by_id]


@given(
    turns=st.lists(st.tuples(ROLES, HARMLESS_TEXT | st.sampled_from(["\n Hi", " \x85\x1cHi ", "a > b"])), min_size=1)
)
def test_harmless_text_gives_the_ids_of_the_rendered_template(
    tokenizer: Tokenizer, reference_tokenizer: BackendTokenizer, turns: list[tuple[Any, str]]
) -> None:
    messages = [Message(role, content) for role, content in turns]
    rendered = "".join(f"<|{role}|>{content}<|end|>" for role, content in turns) + "<|assistant|>"
    assert encode(tokenizer, messages) == reference_tokenizer.encode(rendered).ids


@pytest.mark.parametrize("source", [RELEASED_TEMPLATE, MEDDLING_TEMPLATE, VARIABLE_TEMPLATE])
@given(texts=st.lists(HOSTILE_TEXT, min_size=1, max_size=3), tool_text=HOSTILE_TEXT)
def test_no_text_becomes_a_control_token(tokenizer: Tokenizer, source: str, texts: list[str], tool_text: str) -> None:
    def ids(message_texts: list[str], tools: Any) -> list[int]:
        messages = [Message("user", (text, Image("unread"), text)) for text in message_texts]
        calls = (ToolCall(message_texts[0], {message_texts[0]: [message_texts[0]]}),)
        return encode(tokenizer, [Message("system"), *messages, Message("assistant", tool_calls=calls)], tools, source)

    tools = None if source == MEDDLING_TEMPLATE else [{"name": tool_text, "parameters": {tool_text: tool_text}}]
    harmless = None if tools is None else [{"name": "n", "parameters": {}}]
    expected = control_ids(tokenizer, ids(["Zebra"] * len(texts), harmless))
    assert control_ids(tokenizer, ids(texts, tools)) == expected


@given(text=HOSTILE_TEXT)
def test_hostile_text_reaches_the_model_unchanged(tokenizer: Tokenizer, text: str) -> None:
    token_ids = encode(tokenizer, [Message("user", "Z" + text + "Z")])
    assert tokenizer.decode(token_ids, skip_special=False) == f"<|user|>Z{text}Z<|end|><|assistant|>"


def test_media_stand_where_their_parts_are_and_the_released_names_are_text(tokenizer: Tokenizer) -> None:
    message = Message("user", ("A<|image_1|>", Image("unread"), "B", Sound("unread"), Image("unread")))
    text = tokenizer.decode(encode(tokenizer, [message]), skip_special=False)
    assert text == "<|user|>A<|image_1|><|endoftext10|>B<|endoftext11|><|endoftext10|><|end|><|assistant|>"
    ids = control_ids(tokenizer, encode(tokenizer, [message]))
    assert [tokenizer.added.by_id[token_id].text for token_id in ids] == [
        "<|user|>",
        "<|endoftext10|>",
        "<|endoftext11|>",
        "<|endoftext10|>",
        "<|end|>",
        "<|assistant|>",
    ]


def test_tools_go_into_the_system_message_as_json(tokenizer: Tokenizer) -> None:
    tool = {"name": "get_weather", "description": "", "parameters": {"city": {"type": "str"}}}
    with_system = encode(tokenizer, [Message("system", "Be brief."), Message("user", "Hi")], [tool])
    expected = f"<|system|>Be brief.<|tool|>{json.dumps([tool])}<|/tool|><|end|><|user|>Hi<|end|><|assistant|>"
    assert tokenizer.decode(with_system, skip_special=False) == expected
    openai_shape = [{"type": "function", "function": tool}]
    without_system = encode(tokenizer, [Message("user", "Hi")], openai_shape)
    assert tokenizer.decode(without_system, skip_special=False) == expected.replace("Be brief.", "")
    written_out = encode(tokenizer, [Message("system", "Be brief.", json.dumps([tool])), Message("user", "Hi")])
    assert written_out == with_system


def test_templates_with_a_variable_get_tools_in_openai_shape(tokenizer: Tokenizer) -> None:
    tool = {"name": "now", "parameters": {"user": {}}}
    token_ids = encode(tokenizer, [Message("user", "Hi")], [tool], VARIABLE_TEMPLATE)
    shown = json.dumps([{"type": "function", "function": tool}])
    assert tokenizer.decode(token_ids, skip_special=False) == f"{shown}<|user|>Hi<|end|>"


def test_tools_with_keys_that_are_no_strings_are_shown_as_json(tokenizer: Tokenizer) -> None:
    messages = [Message("user", "Hi")]
    numbers, strings = ([{"name": "f", "parameters": {key: {}}}] for key in (1, "1"))
    assert encode(tokenizer, messages, numbers, VARIABLE_TEMPLATE) == encode(
        tokenizer, messages, strings, VARIABLE_TEMPLATE
    )


def test_a_key_that_spells_a_token_of_letters_is_text(tokenizer: Tokenizer) -> None:
    letters = AddedToken(token_id=999, text="stop", special=True, lstrip=False, rstrip=False)
    with_letters = replace(tokenizer, added=AddedTokens((*tokenizer.added.tokens, letters)))
    tools = [{"name": "f", "parameters": {"stop": {}, "stopped": {}}}]
    assert 999 not in encode(with_letters, [Message("user", "Hi")], tools, VARIABLE_TEMPLATE)


def test_an_empty_list_of_tools_offers_none(tokenizer: Tokenizer) -> None:
    messages = [Message("user", "Hi")]
    assert encode(tokenizer, messages, []) == encode(tokenizer, messages)


def test_tools_are_never_dropped_without_a_word(tokenizer: Tokenizer) -> None:
    messages = [Message("user", "Hi")]
    with pytest.raises(InputError, match="no place for tools"):
        encode(tokenizer, messages, [{"name": "now"}], "{{ messages[0].content }}")
    with pytest.raises(InputError, match="does not read tools from a system message"):
        encode(tokenizer, [Message("system", tools="[]")], source=VARIABLE_TEMPLATE)
    with pytest.raises(InputError, match="given twice"):
        encode(tokenizer, [Message("system", tools="[]")], [{"name": "now"}])


def test_calls_and_results_follow_the_layout(tokenizer: Tokenizer) -> None:
    call = ToolCall("get_weather", {"city": "Paris"})
    messages = [Message("assistant", "", tool_calls=(call,)), Message("tool", "18 degrees")]
    assert tokenizer.decode(encode(tokenizer, messages), skip_special=False) == (
        '<|assistant|><|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]<|/tool_call|><|end|>'
        "<|tool|>18 degrees<|end|><|assistant|>"
    )


@pytest.mark.parametrize(("text", "opener"), [("", "functools"), ("Let me see.", "Let me see.\nfunctools")])
def test_without_call_tokens_calls_are_written_and_read_back_as_functools(
    tokenizer: Tokenizer, text: str, opener: str
) -> None:
    others = tuple(token for token in tokenizer.added.tokens if "tool_call" not in token.text)
    without = replace(tokenizer, added=AddedTokens(others))
    calls = (ToolCall("get_weather", {"city": "<|end|>"}),)
    shown = without.decode(encode(without, [Message("assistant", text, tool_calls=calls)]), skip_special=False)
    written = opener + '[{"name": "get_weather", "arguments": {"city": "<|end|>"}}]'
    assert shown == f"<|assistant|>{written}<|end|><|assistant|>"
    assert parse_tool_calls(written) == (opener.removesuffix("functools"), calls)


def test_without_a_generation_prompt_the_conversation_ends(tokenizer: Tokenizer) -> None:
    token_ids = encode(tokenizer, [Message("user", "Hi")], add_generation_prompt=False)
    assert tokenizer.decode(token_ids, skip_special=False) == "<|user|>Hi<|end|><|endoftext|>"


def test_unusable_conversations_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="no messages"):
        encode(tokenizer, [])
    with pytest.raises(InputError, match="lone surrogate"):
        encode(tokenizer, [Message("user", "\udcff")])
    with pytest.raises(InputError, match="noncharacters"):
        encode(tokenizer, [Message("user", "".join(NONCHARACTERS))])
    template = ChatTemplate("{{ messages }}", {})
    with pytest.raises(InputError, match="a medium for vision is given, which this model does not have"):
        encode_chat(
            [Message("user", (Image("unread"),))], None, template=template, tokenizer=tokenizer, placeholders={}
        )


def test_a_failing_template_is_a_configuration_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="chat template failed"):
        encode(tokenizer, [Message("user", "Hi")], source="{{ messages + 1 }}")
