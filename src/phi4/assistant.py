"""The assistant: messages in, text out."""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from phi4.checkpoint.hub import resolve, shipped_packs
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.usual_dtype import usual_dtype
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.engine.constraint import Constraint
from phi4.engine.engine import Engine
from phi4.engine.handle import Handle
from phi4.engine.request import FinishReason, Request
from phi4.engine.sampling import Sampling
from phi4.engine.whole_pass import score
from phi4.errors import InputError
from phi4.inputs import Rotary
from phi4.modality import Modality
from phi4.processing.grammar import Grammars
from phi4.processing.messages import ImageSource, Message, SoundSource, read_messages, user_message
from phi4.processing.processor import Processor
from phi4.processing.stop import StopScanner
from phi4.processing.tokenizer import TextStream
from phi4.processing.tools import ToolCall, parse_tool_calls

DEFAULT_MODEL = "nano"
# The prompt that the release was trained to transcribe with (facts sheet 3.2).
TRANSCRIBE_PROMPT = "Transcribe the audio clip into text."

Device = Literal["cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Answer:
    """One answer and what was used for it.

    Attributes:
        text: the answer without its end token.
        token_ids: its tokens, the end token left out; those that made up a stop string are among them.
        prompt_token_ids: the prompt's, placeholders expanded.
        finish_reason: "stop" at an end token or stop string, "length" at a limit.
        adapter: the LoRA that was active, None for the bare language model.
        rotary: the LongRoPE table that the last token was computed with.
        media: modality and token count of each medium, in order.
        seconds: time from the prepared prompt to the last token; the engine does not wait for the reader of a stream.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...]
    finish_reason: FinishReason
    adapter: str | None
    rotary: Rotary
    media: tuple[tuple[str, int], ...]
    seconds: float

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The function calls that the answer asks for, in either dialect."""
        return parse_tool_calls(self.text)[1]

    def to_json(self) -> dict[str, Any]:
        """The answer as `phi4 ask --json` prints it."""
        return {
            "text": self.text,
            "token_ids": list(self.token_ids),
            "prompt_tokens": len(self.prompt_token_ids),
            "prompt_token_ids": list(self.prompt_token_ids),
            "finish_reason": self.finish_reason,
            "adapter": self.adapter,
            "rotary": self.rotary,
            "media": [{"modality": modality, "tokens": tokens} for modality, tokens in self.media],
            "tool_calls": [{"name": call.name, "arguments": dict(call.arguments)} for call in self.tool_calls],
            "seconds": round(self.seconds, 3),
        }


class AnswerStream:
    """An answer on its way: iterate for pieces of text, then read `answer`.

    Pieces are never half a character or a part of a stop string, at the end of an answer neither. Iterating again goes
    on where it was left.
    """

    def __init__(self, engine: Engine, processor: Processor, request: Request, stop: Sequence[str]) -> None:
        """Checks the request and hands it to the engine; raises what `Assistant.stream` lists."""
        if request.sampling.n > 1:
            raise InputError(f"a stream is one answer, but n is {request.sampling.n}; ask once for each answer")
        text_stream, scanner = TextStream(processor.tokenizer), StopScanner(stop)
        self._finished: list[Answer] = []
        handle = engine.submit(request)
        self._pieces = _read(handle, text_stream, scanner, self._finished)
        # It holds no reference to this object, and may outlive it: when nobody can read any more, the answer ends.
        weakref.finalize(self._pieces, handle.cancel)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def answer(self) -> Answer:
        """The finished answer; reads what is left of the stream first."""
        for _ in self._pieces:
            pass
        if not self._finished:
            raise RuntimeError("the answer was interrupted by an error and cannot be finished")
        return self._finished[0]


def _read(handle: Handle, text_stream: TextStream, scanner: StopScanner, finished: list[Answer]) -> Iterator[str]:
    """Yields text as it becomes certain, then adds the answer to `finished`; whoever stops reading ends the answer."""
    text, token_ids = "", []
    try:
        for token in handle:
            if token.finish_reason != "stop":
                token_ids.append(token.token_id)
                piece = scanner.feed(text_stream.push(token.token_id))
                text += piece
                yield piece
            if token.finish_reason is not None or scanner.stopped:
                break
    finally:
        handle.cancel()
    if not scanner.stopped:
        # Bytes that never became a character, where a limit cut the answer, are no text.
        piece = scanner.flush()
        text += piece
        yield piece
    inputs = handle.request.inputs
    answer = Answer(
        text=text,
        token_ids=tuple(token_ids),
        prompt_token_ids=inputs.token_ids,
        finish_reason="stop" if scanner.stopped else token.finish_reason or "stop",
        adapter=handle.adapter,
        rotary=token.rotary,
        media=tuple((medium.modality, medium.num_tokens) for medium in inputs.media),
        seconds=token.seconds,
    )
    finished.append(answer)


@dataclass(frozen=True)
class Assistant:
    """A model together with the way to talk to it.

    Example:
        >>> from phi4 import Assistant
        >>> assistant = Assistant.load()
        >>> assistant.ask("What is the capital of France?").text
        'The capital of France is Paris.'
    """

    loaded: LoadedModel
    processor: Processor
    cache_dtype: torch.dtype | None = None
    cache_tokens: int | None = None

    @cached_property
    def engine(self) -> Engine:
        """What answers requests; it is made, with its cache, when it is first asked for."""
        return Engine(
            self.loaded.model,
            self.loaded.generation.eos_token_ids,
            cache_tokens=self.cache_tokens,
            cache_dtype=self.cache_dtype,
        )

    @cached_property
    def grammars(self) -> Grammars:
        """What answers can be held to.

        Example:
            >>> assistant.ask("Is Paris in France?", constrain=assistant.grammars.regex("Yes|No")).text
            'Yes'
        """
        eos_token_ids = tuple(self.loaded.generation.eos_token_ids)
        return Grammars(self.processor.tokenizer, self.processor.vocab_size, eos_token_ids)

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        dtype: torch.dtype | None = None,
        device: Device | None = None,
        cache_dtype: torch.dtype | None = None,
        cache_tokens: int | None = None,
        packs: Sequence[str | Path] | None = None,
        modalities: Sequence[Modality] = (),
    ) -> "Assistant":
        """Loads a model.

        Args:
            model: a directory, the name of a model that was pulled, or "nano", which is pulled if it is not there.
            dtype: of weights and activations; None keeps what the files hold, but takes float32 for bf16 on a CPU
                without bf16 arithmetic (`usual_dtype`).
            device: None takes CUDA or MPS where there is one, otherwise the CPU.
            cache_dtype: of the cached keys and values, as for `Engine`: torch.int8, or None for the model's.
            cache_tokens: that the cache holds; None takes `default_cache_tokens`.
            packs: files that add modalities to a base language model; None takes those that come with the model
                ("nano" has vision and speech), and none are named by ().
            modalities: those from outside the package that packs may be for.

        Raises:
            ConfigError: a configuration file cannot be used.
            CheckpointError: the model is not there, or its weights cannot be used.
            InputError: the device is not there, or `dtype` is no type for weights.
        """
        if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise InputError(f"dtype must be torch.float32, torch.bfloat16 or torch.float16, not {dtype!r}")
        chosen = check_device(device or best_device())
        chosen_packs = shipped_packs(str(model)) if packs is None else [Path(pack) for pack in packs]
        directory = resolve(str(model))
        chosen_dtype = dtype or usual_dtype(open_checkpoint(directory), torch.device(chosen))
        loaded = load_model(directory, chosen_dtype, chosen, chosen_packs, modalities)
        return cls(
            loaded, Processor.load(loaded.directory, loaded.config, loaded.preprocessor), cache_dtype, cache_tokens
        )

    def ask(
        self,
        text: str,
        *,
        images: Sequence[ImageSource] = (),
        sounds: Sequence[SoundSource] = (),
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        constrain: Callable[[], Constraint] | None = None,
    ) -> Answer:
        """Answers one question; `stream` says what the arguments are."""
        return self.stream(
            text,
            images=images,
            sounds=sounds,
            system=system,
            tools=tools,
            sampling=sampling,
            stop=stop,
            constrain=constrain,
        ).answer

    def stream(
        self,
        text: str,
        *,
        images: Sequence[ImageSource] = (),
        sounds: Sequence[SoundSource] = (),
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        constrain: Callable[[], Constraint] | None = None,
    ) -> AnswerStream:
        """Answers one question piece by piece.

        Args:
            text: the question. It is text and nothing else: control tokens in it are spelled out.
            images: pictures, placed before the text in their order.
            sounds: placed behind the pictures.
            system: the system message.
            tools: functions that the model may call.
            sampling: how tokens are chosen; greedy by default.
            stop: strings that end the answer and are not part of it.
            constrain: a grammar from `grammars` that the answer is held to.

        Raises:
            InputError: something that was given cannot be used.
            CapacityError: the prompt is longer than the context.
        """
        if not isinstance(text, str):
            raise InputError(f"a question must be text, not {text!r}")
        for name, value in {"images": images, "sounds": sounds, "stop": stop}.items():
            if isinstance(value, str | bytes):
                raise InputError(f"{name} must be a list; write {name}=[{value!r}]")
        messages = [Message("system", system)] if system is not None else []
        messages.append(user_message(text, images, sounds))
        return self.reply(messages, tools=tools, sampling=sampling, stop=stop, constrain=constrain)

    def reply(
        self,
        messages: Sequence[Message] | Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        constrain: Callable[[], Constraint] | None = None,
    ) -> AnswerStream:
        """Continues a conversation, given as messages or as OpenAI-style dicts; the rest is as for `stream`.

        A string where a picture or sound is due names a file, so dicts from strangers must not come here as they are.
        """
        inputs = self.processor.prepare(read_messages(messages), tools)
        return AnswerStream(
            self.engine, self.processor, Request(inputs, sampling or Sampling(), constrain=constrain), stop
        )

    def transcribe(self, audio: SoundSource, *, sampling: Sampling | None = None) -> Answer:
        """Writes down what is said in a sound."""
        return self.ask(TRANSCRIBE_PROMPT, sounds=[audio], sampling=sampling)

    def logits(
        self, token_ids: Sequence[int], *, images: Sequence[ImageSource] = (), sounds: Sequence[SoundSource] = ()
    ) -> torch.Tensor:
        """Scores every position of a prompt.

        Args:
            token_ids: one placeholder id for each medium; it is expanded.
            images: pictures in the order of their placeholders.
            sounds: in the order of theirs.

        Returns:
            [tokens, vocabulary], tokens counted after expansion, in the model's dtype.
        """
        inputs = self.processor.prepare_ids([int(token_id) for token_id in token_ids], images, sounds)
        (logits,) = score(self.loaded.model, [inputs])
        return logits


def check_device(device: str) -> Device:
    """Returns the device if it can be used on this machine.

    Raises:
        InputError: it is unknown, or not there.
    """
    match device:
        case "cpu":
            return "cpu"
        case "cuda" if torch.cuda.is_available():
            return "cuda"
        case "mps" if torch.backends.mps.is_available():
            return "mps"
        case "cuda" | "mps":
            raise InputError(f"this machine, or this build of torch, has no {device}; leave the device out or take cpu")
    raise InputError(f"there is no device {device!r}; it is cpu, cuda or mps")


def best_device() -> Device:
    """CUDA or MPS where there is one, otherwise the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
