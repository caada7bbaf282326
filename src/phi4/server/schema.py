"""What clients send, in OpenAI's shapes: unknown fields are ignored, contradictions are refused."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from phi4.engine.sampling import MAX_ANSWERS, MAX_BIAS, MAX_LOGPROBS, MAX_PENALTY, MAX_TEMPERATURE, MIN_TOP_P
from phi4.processing.stop import MAX_STOP_STRINGS
from phi4.server.errors import RefusedError, invalid_field

_Request = TypeVar("_Request")


def _rule(**keywords: Any) -> msgspec.Meta:
    """What the published schema says of a value. Whoever uses the value checks it, and refuses it with better words."""
    return msgspec.Meta(extra_json_schema=keywords)


# Answers to one request: each holds a random stream, text and a row, whether it is waiting or running.
MAX_CHOICES = 1024

_PositiveInt = Annotated[int, _rule(minimum=1)]
_Share = Annotated[float, _rule(minimum=0, maximum=1)]
_Penalty = Annotated[float, _rule(minimum=-MAX_PENALTY, maximum=MAX_PENALTY)]
_NumBest = Annotated[int, _rule(minimum=0, maximum=MAX_LOGPROBS)]
_TokenId = Annotated[int, _rule(minimum=0)]
_TEMPERATURE = _rule(anyOf=[{"const": 0}, {"minimum": 1e-4}], maximum=MAX_TEMPERATURE)
_StopString = Annotated[str, _rule(minLength=1)]
_NAMED = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
# A function in OpenAI's shape, or the model card's, in which it stands by itself.
_Function = Annotated[
    dict[str, Any],
    _rule(
        anyOf=[
            {"required": ["function"], "properties": {"function": _NAMED}},
            _NAMED | {"not": {"required": ["function"]}},
        ]
    ),
]

TextFormat = Literal["json", "text", "verbose_json", "srt", "vtt"]

_IDS = {"type": "integer", "minimum": 0}
_PROMPTS = [
    {"items": items}
    for items in ({"type": "string", "minLength": 1}, _IDS, {"type": "array", "items": _IDS, "minItems": 1})
]


class ImageUrl(msgspec.Struct, frozen=True):
    """Where a picture is: a data URI, or an http address. `detail` is ignored: pictures are cut as they need it."""

    url: str


class InputAudio(msgspec.Struct, frozen=True):
    """A sound in base64. Its own header says its format; `format` is not needed."""

    data: str


class AudioUrl(msgspec.Struct, frozen=True):
    """Where a sound is: a data URI, or an http address."""

    url: str


class TextPart(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """Text in a message."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag_field="type", tag="image_url"):
    """A picture in a message."""

    image_url: ImageUrl


class InputAudioPart(msgspec.Struct, frozen=True, tag_field="type", tag="input_audio"):
    """A sound in a message, sent along."""

    input_audio: InputAudio


class AudioUrlPart(msgspec.Struct, frozen=True, tag_field="type", tag="audio_url"):
    """A sound in a message, by its address."""

    audio_url: AudioUrl


ContentPart = TextPart | ImagePart | InputAudioPart | AudioUrlPart


class ChatMessage(msgspec.Struct, frozen=True):
    """One turn of a conversation. "developer" is another word for "system"."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    tool_calls: list[_Function] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream holds besides the answer."""

    include_usage: bool = False


class JsonSchema(msgspec.Struct, frozen=True):
    """A JSON schema; answers always follow it, whether it is `strict` or not."""

    schema: dict[str, Any]


class ResponseFormat(msgspec.Struct, frozen=True):
    """The form that an answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def __post_init__(self) -> None:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError('a schema in json_schema and the type "json_schema" belong together; give both or none')


class FunctionName(msgspec.Struct, frozen=True):
    """The name of a function."""

    name: str


class NamedTool(msgspec.Struct, frozen=True):
    """The choice of one function."""

    type: Literal["function"]
    function: FunctionName


class SamplingFields(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen, the same for chats and completions. The last four go beyond OpenAI's interface."""

    max_tokens: _PositiveInt | None = None
    temperature: Annotated[float, _TEMPERATURE] | None = None
    top_p: Annotated[float, _rule(minimum=MIN_TOP_P, maximum=1)] | None = None
    n: Annotated[int, _rule(minimum=1, maximum=MAX_ANSWERS)] | None = None
    stop: _StopString | Annotated[list[_StopString], _rule(maxItems=MAX_STOP_STRINGS)] | None = None
    seed: Annotated[int, _rule(minimum=0, maximum=2**63 - 1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: (
        Annotated[
            dict[str, Annotated[float, _rule(minimum=-MAX_BIAS, maximum=MAX_BIAS)]],
            _rule(propertyNames={"pattern": "^[0-9]+$"}),
        ]
        | None
    ) = None
    top_k: _PositiveInt | None = None
    min_p: _Share | None = None
    repetition_penalty: Annotated[float, _rule(minimum=0.01, maximum=100)] | None = None
    stop_token_ids: list[_TokenId] | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end an answer, one or several."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(SamplingFields, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], _rule(minItems=1)]
    model: str | None = None
    max_completion_tokens: _PositiveInt | None = None
    logprobs: bool | None = None
    top_logprobs: _NumBest | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[_Function] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: ResponseFormat | None = None

    def __post_init__(self) -> None:
        _check_limits(self.max_tokens, self.max_completion_tokens)
        _check_stream(self.stream, self.stream_options)
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is given, but logprobs is not true; set logprobs, or leave top_logprobs out")
        if self.tool_choice not in (None, "none") and not self.tools:
            raise ValueError("tool_choice is given, but no tools are; give tools, or leave tool_choice out")
        is_json = self.response_format is not None and self.response_format.type != "text"
        if is_json and self.tools and self.tool_choice != "none":
            raise ValueError(
                "response_format asks for JSON and tools are offered, but an answer that is all JSON cannot call; "
                'give one of them, or set tool_choice to "none"'
            )


class CompletionRequest(SamplingFields, frozen=True, kw_only=True):
    """`POST /v1/completions`."""

    prompt: (
        Annotated[str, _rule(minLength=1)] | Annotated[list[str | int | list[int]], _rule(anyOf=_PROMPTS, minItems=1)]
    )
    max_tokens: Annotated[int, _rule(minimum=0)] | None = None  # 0 with `echo`, to score a prompt and no more
    model: str | None = None
    logprobs: _NumBest | None = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    best_of: int | None = None

    def __post_init__(self) -> None:
        _check_stream(self.stream, self.stream_options)
        if self.suffix:
            raise ValueError("suffix is given, but this model writes at the end of a prompt only; leave suffix out")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError(f"best_of is {self.best_of}, but n is {self.n or 1}: all answers are returned here")
        if self.echo and self.stream:
            raise ValueError("echo and stream are both true; a prompt is echoed in whole answers only")
        if not isinstance(self.prompt, str) and len({type(member) for member in self.prompt}) != 1:
            raise ValueError(
                "prompt must be text, token ids, or a list of texts or of lists of token ids, and not empty"
            )
        if len(self.prompts) * (self.n or 1) > MAX_CHOICES:
            raise ValueError(
                f"{len(self.prompts)} prompts with {self.n or 1} answers each are more than the {MAX_CHOICES:,} "
                "answers that one request may ask for; send several requests"
            )

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, whether one or several were given."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        token_ids = [member for member in self.prompt if isinstance(member, int)]
        return [token_ids] if token_ids else [member for member in self.prompt if not isinstance(member, int)]


class TokenizeRequest(msgspec.Struct, frozen=True):
    """`POST /tokenize`: a prompt as in completions, or messages as in a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], _rule(minItems=1)] | None = None
    tools: list[_Function] | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either a prompt or messages")


class DetokenizeRequest(msgspec.Struct, frozen=True):
    """`POST /detokenize`."""

    tokens: list[_TokenId]
    model: str | None = None


class TranscriptionForm(msgspec.Struct, frozen=True):
    """What stands beside the file in `POST /v1/audio/transcriptions` and `/v1/audio/translations`.

    The last three are OpenAI's. This model can do nothing with them, and refuses them where they would matter.
    """

    model: str | None = None
    language: str | None = None
    response_format: TextFormat = "json"
    temperature: Annotated[float, _TEMPERATURE] = 0.0
    prompt: Annotated[str, _rule(maxLength=0)] = ""
    stream: Annotated[bool, _rule(const=False)] = False
    timestamp_granularities: list[Literal["segment", "word"]] = msgspec.field(
        default_factory=list, name="timestamp_granularities[]"
    )

    def __post_init__(self) -> None:
        if self.prompt:
            raise ValueError("a prompt is given, but the model was trained without one; leave it out")
        if self.stream:
            raise ValueError("transcriptions are not streamed here; ask for a chat about the sound instead")
        if "word" in self.timestamp_granularities:
            raise ValueError("the model gives no times of words; ask for segments")


def read_request(kind: type[_Request], body: bytes | bytearray) -> _Request:
    """Reads the JSON body of a request.

    Raises:
        RefusedError: with status 400; it is no JSON, or a field is missing, of the wrong kind or contradicts another.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _unusable(error) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise invalid_field(f"the request is not valid JSON: {error}", None) from error


def read_form(fields: Mapping[str, str | list[str]]) -> TranscriptionForm:
    """Reads the fields of a form, all of which are text. An empty one counts as not given.

    Raises:
        RefusedError: with status 400; a field cannot be used.
    """
    try:
        return msgspec.convert(
            {name: value for name, value in fields.items() if value}, TranscriptionForm, strict=False
        )
    except msgspec.ValidationError as error:
        raise _unusable(error) from error


def _unusable(error: msgspec.ValidationError) -> RefusedError:
    _, _, path = str(error).partition(" - at `$")
    message = f"the request cannot be used: {error}; /openapi.json says what each field may hold"
    return invalid_field(message, path.strip("`.") or None)


def _check_limits(max_tokens: int | None, max_completion_tokens: int | None) -> None:
    if None not in (max_tokens, max_completion_tokens) and max_tokens != max_completion_tokens:
        raise ValueError(
            f"max_tokens is {max_tokens} and max_completion_tokens {max_completion_tokens}; "
            "they mean the same, so give one of them"
        )


def _check_stream(stream: bool | None, options: StreamOptions | None) -> None:
    if options is not None and not stream:
        raise ValueError("stream_options are given, but stream is not true; set stream, or leave stream_options out")
