"""Chat templates: jinja2 programs that a checkpoint brings, run in a sandbox."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from phi4.errors import ConfigError, InputError
from phi4.json_file import read_json
from phi4.processing.tokenizer import Tokenizer

BUILT_IN_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
SPECIAL_TOKEN_VARIABLES = ("bos_token", "eos_token", "pad_token", "unk_token")

# What a template's own mistakes and the sandbox's refusals come out as; a SyntaxError is Python's, which compiles
# what jinja2 makes of a template and nests at most 20 blocks.
TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)

ToolStyle = Literal["variable", "system message", "none"]


class ChatTemplate:
    """A template that lays a conversation out as one string.

    Attributes:
        source: the jinja2 program.
        tool_style: how it takes tools: as its variable `tools`, as a field of the system message, or not at all.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compiles a template.

        Args:
            source: the jinja2 program.
            special_tokens: texts that it may print, by variable name, such as `eos_token`.

        Raises:
            ConfigError: the source is not valid jinja2.
        """
        environment = _build_environment()
        try:
            tree = environment.parse(source)
            self.tool_style = _find_tool_style(tree)
            self._template = environment.from_string(tree)
        except TEMPLATE_ERRORS as error:
            raise ConfigError(f"the chat template is not valid jinja2: {error}") from error
        self.source = source
        self._special_tokens = dict(special_tokens)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """Prints a conversation.

        Args:
            messages: each with `role`, `content` and, in a system message, perhaps `tools`; all strings.
            tools: functions in OpenAI's shape, for templates that take them as a variable.
            add_generation_prompt: whether to end with the opener of the assistant's answer.

        Raises:
            InputError: the template refuses the conversation.
            ConfigError: the template fails or does what the sandbox forbids.
        """
        try:
            return self._template.render(
                messages=messages, tools=tools, add_generation_prompt=add_generation_prompt, **self._special_tokens
            )
        except TEMPLATE_ERRORS as error:
            raise ConfigError(f"the chat template failed: {type(error).__name__}: {error}") from error


def load_chat_template(directory: Path, tokenizer: Tokenizer) -> ChatTemplate:
    """Reads `chat_template.jinja` or the template in `tokenizer_config.json`; without either, the Phi-4 layout.

    Raises:
        ConfigError: the template is no readable jinja2, or there is none and the tokenizer lacks the Phi-4 tokens.
    """
    config_path = directory / "tokenizer_config.json"
    config = read_json(config_path) if config_path.exists() else {}
    source = _read_source(directory, config)
    if source is None:
        lacking = [text for text in BUILT_IN_TOKENS if text not in tokenizer.added.by_text]
        if lacking:
            raise ConfigError(
                f"{directory} has no chat template, and the Phi-4 layout needs tokens that its tokenizer lacks: "
                f"{', '.join(lacking)}"
            )
        source = resources.files("phi4.processing").joinpath("phi4_chat.jinja").read_text(encoding="utf-8")
    return ChatTemplate(source, _read_special_tokens(config))


def _read_source(directory: Path, config: Mapping[str, Any]) -> str | None:
    path = directory / "chat_template.jinja"
    if path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read as UTF-8 text: {error}") from error
    source = config.get("chat_template")
    if isinstance(source, list):
        if not all(isinstance(entry, Mapping) and isinstance(entry.get("name"), str) for entry in source):
            raise ConfigError(f'the chat_template of {directory} is a list, but not of objects with a "name"')
        named = {entry["name"]: entry.get("template") for entry in source}
        if "default" not in named:
            raise ConfigError(f"{directory} has chat templates {sorted(named)}, but none named 'default'")
        source = named["default"]
    if source is not None and not isinstance(source, str):
        raise ConfigError(f"the chat_template of {directory} must be text, not a {type(source).__name__}")
    return source


def _read_special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """A special token stands as its text or as an object with its text in `content`."""
    tokens = {name: config.get(name) for name in SPECIAL_TOKEN_VARIABLES}
    texts = {name: token.get("content") if isinstance(token, Mapping) else token for name, token in tokens.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


class _Generation(Extension):
    """`{% generation %}`, with which templates mark answers for training: here what it holds is printed, no more."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _build_environment() -> ImmutableSandboxedEnvironment:
    """The environment that templates on the Hub are written for, as transformers has it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _find_tool_style(tree: nodes.Template) -> ToolStyle:
    if any(name.name == "tools" and name.ctx == "load" for name in tree.find_all(nodes.Name)):
        return "variable"
    keys = [constant.value for constant in tree.find_all(nodes.Const)]
    attributes = [attribute.attr for attribute in tree.find_all(nodes.Getattr)]
    return "system message" if "tools" in keys + attributes else "none"


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's own filter, this one does not escape what is special in HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise InputError(f"the chat template refuses this conversation: {message}")


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
