"""What the server answers, in OpenAI's shapes, and what was used for it in fields of our own."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

FinishReason = Literal["stop", "length", "tool_calls"]


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """How many tokens of a prompt stand for pictures and sounds, and how many were found in the cache."""

    image_tokens: int = 0
    audio_tokens: int = 0
    cached_tokens: int = 0


class MediumUse(msgspec.Struct, frozen=True):
    """One picture or sound: its modality and how many tokens it takes."""

    modality: str
    tokens: int


class Used(msgspec.Struct, frozen=True):
    """What an answer was computed with.

    Attributes:
        adapter: the LoRA that was active, None for the bare language model.
        rotary: the LongRoPE table of the last token, "short" or "long"; None if no token was generated.
        media: in the order of the conversation.
    """

    adapter: str | None
    rotary: str | None
    media: list[MediumUse] = []


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one request; `phi4` is what was used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    phi4: Used


class TopLogprob(msgspec.Struct, frozen=True):
    """One of the most probable tokens; `bytes` are its UTF-8, which need not be a whole character."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    """The token that was chosen, and what else was probable."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Log-probabilities of a chat's answer."""

    content: list[TokenLogprob]


class FunctionCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call, or a piece of one on its way: `arguments` is JSON text."""

    arguments: str
    name: str | UnsetType = UNSET


class ToolCallItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of an answer's calls; `index` stands in streams only, `id` and `type` in a call's first piece only."""

    function: FunctionCall
    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class AnswerMessage(msgspec.Struct, frozen=True):
    """A whole answer."""

    content: str | None
    role: str = "assistant"
    tool_calls: list[ToolCallItem] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True):
    """One of `n` whole answers."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None


class ChatCompletion(msgspec.Struct, frozen=True):
    """The answer of `/v1/chat/completions` without streaming."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    object: str = "chat.completion"


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk adds to an answer."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ToolCallItem] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, frozen=True):
    """What a chunk adds to one of `n` answers."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: ChatLogprobs | None = None


class ChatChunk(msgspec.Struct, frozen=True):
    """A piece of a streamed chat; the last one has no choices if usage was asked for."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    object: str = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """Log-probabilities of a completion, one entry for each token; the first token of an echoed prompt has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct, frozen=True):
    """One completion, whole or a piece of it."""

    index: int
    text: str
    finish_reason: FinishReason | None
    logprobs: CompletionLogprobs | None = None


class Completion(msgspec.Struct, frozen=True):
    """The answer of `/v1/completions`, whole or a chunk."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    object: str = "text_completion"
    usage: Usage | UnsetType | None = UNSET


class ModelCard(msgspec.Struct, frozen=True):
    """One entry of `/v1/models`.

    Attributes:
        modality: what a pack adds; None for the base.
        parent: id of the base that a pack is for.
        max_model_len: tokens of prompt and answer together.
    """

    id: str
    created: int
    max_model_len: int
    parent: str | None
    modality: str | None
    object: str = "model"
    owned_by: str = "phi4"


class ModelList(msgspec.Struct, frozen=True):
    """The answer of `/v1/models`."""

    data: list[ModelCard]
    object: str = "list"


class Tokens(msgspec.Struct, frozen=True):
    """The answer of `/tokenize`; every placeholder is expanded."""

    tokens: list[int]
    count: int
    max_model_len: int


class DecodedText(msgspec.Struct, frozen=True):
    """The answer of `/detokenize`."""

    prompt: str


class TokenizerInfo(msgspec.Struct, frozen=True):
    """The answer of `/tokenizer_info`, with the names of a `tokenizer_config.json`."""

    eos_token: str
    chat_template: str
    bos_token: str | None = None
    pad_token: str | None = None


class Health(msgspec.Struct, frozen=True):
    """The answer of `/health`."""

    status: Literal["ok", "stopping"]


class TranscriptionUsage(msgspec.Struct, frozen=True):
    """Tokens of a transcription, all pieces of the sound together."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    type: str = "tokens"


class Transcription(msgspec.Struct, frozen=True):
    """The answer of `/v1/audio/transcriptions` as json."""

    text: str
    usage: TranscriptionUsage


class TimedText(msgspec.Struct, frozen=True):
    """What is said in one piece of a sound, from `start` to `end` in seconds."""

    id: int
    start: float
    end: float
    text: str
    tokens: list[int]
    avg_logprob: float


class TimedTranscription(msgspec.Struct, frozen=True):
    """The answer of `/v1/audio/transcriptions` as verbose_json; `duration` is in seconds."""

    task: str
    language: str
    duration: float
    text: str
    segments: list[TimedText]
    usage: TranscriptionUsage
