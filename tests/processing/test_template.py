"""Chat templates: where they come from, what they may do and what the sandbox forbids."""

from pathlib import Path

import pytest

from phi4.errors import ConfigError, InputError
from phi4.processing.template import ChatTemplate, load_chat_template
from phi4.processing.tokenizer import Tokenizer
from processing.phi_tokenizer import write_json

HI = [{"role": "user", "content": "Hi"}]


def test_the_built_in_layout_is_the_releases(tmp_path: Path, tokenizer: Tokenizer) -> None:
    template = load_chat_template(tmp_path, tokenizer)
    messages = [{"role": "system", "content": "S", "tools": "[]"}, {"role": "user", "content": "U\n"}]
    assert template.render(messages) == "<|system|>S<|tool|>[]<|/tool|><|end|><|user|>U\n<|end|><|assistant|>"
    assert template.render(HI, add_generation_prompt=False) == "<|user|>Hi<|end|><|endoftext|>"
    assert template.tool_style == "system message"


def test_the_checkpoints_own_template_is_taken(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": "{{ eos_token }}1", "eos_token": {"content": "E"}})
    assert load_chat_template(tmp_path, tokenizer).render(HI) == "E1"
    named = [{"name": "tool_use", "template": "2"}, {"name": "default", "template": "3"}]
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": named})
    assert load_chat_template(tmp_path, tokenizer).render(HI) == "3"
    (tmp_path / "chat_template.jinja").write_text("4")
    assert load_chat_template(tmp_path, tokenizer).render(HI) == "4"


def test_templates_that_cannot_be_used_are_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": [{"name": "rag", "template": ""}]})
    with pytest.raises(ConfigError, match=r"\['rag'\], but none named 'default'"):
        load_chat_template(tmp_path, tokenizer)
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": "{% for %}"})
    with pytest.raises(ConfigError, match="not valid jinja2"):
        load_chat_template(tmp_path, tokenizer)
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": 7})
    with pytest.raises(ConfigError, match="must be text"):
        load_chat_template(tmp_path, tokenizer)
    for entries in (["{{ 1 }}"], [{"name": ["default"], "template": ""}]):
        write_json(tmp_path / "tokenizer_config.json", {"chat_template": entries})
        with pytest.raises(ConfigError, match='not of objects with a "name"'):
            load_chat_template(tmp_path, tokenizer)
    (tmp_path / "chat_template.jinja").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match=r"chat_template\.jinja cannot be read as UTF-8"):
        load_chat_template(tmp_path, tokenizer)


@pytest.mark.parametrize("depth", [25, 3000])
def test_a_template_nested_too_deep_is_a_configuration_error(depth: int) -> None:
    with pytest.raises(ConfigError, match="not valid jinja2"):
        ChatTemplate("{% for x in y %}" * depth + "{% endfor %}" * depth, {})


def test_the_built_in_layout_needs_its_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    bare = Tokenizer(tokenizer.plain, type(tokenizer.added)(tokenizer.added.tokens[:3]), frozenset())
    with pytest.raises(ConfigError, match=r"lacks: .*<\|user\|>"):
        load_chat_template(tmp_path, bare)


def test_templates_of_the_hub_find_what_they_expect() -> None:
    source = """
    {%- for message in messages %}
      {%- if loop.index > 1 %}{% break %}{% endif %}
      {{- message | tojson }}
    {%- endfor %}
    {{- strftime_now("%%") }}"""
    assert ChatTemplate(source, {}).render([{"content": "<é>"}, *HI]) == '{"content": "<é>"}%'


def test_a_template_may_refuse_a_conversation() -> None:
    with pytest.raises(InputError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}", {}).render(HI)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages[0].update(role='system') }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{% for i in range(10000000) %}{{ i }}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ undefined_name.attribute }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ messages | map('unknown') | list }}",
        "{% include 'other' %}",
    ],
)
def test_hostile_and_broken_templates_end_in_an_error(source: str) -> None:
    with pytest.raises(ConfigError, match="chat template"):
        ChatTemplate(source, {}).render(HI)


def test_a_template_may_mark_answers_and_ask_for_ascii() -> None:
    source = "{% generation %}{{ messages[0].content | tojson(ensure_ascii=True) }}{% endgeneration %}"
    assert ChatTemplate(source, {}).render([{"role": "user", "content": "é"}]) == '"\\u00e9"'
