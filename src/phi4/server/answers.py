"""The one place that talks to the engine: a request goes in, the text of its answers comes out as it is certain."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from phi4.engine.engine import Engine
from phi4.engine.request import GeneratedToken, Request
from phi4.engine.sampler import LogProbabilities
from phi4.inputs import ModelInputs
from phi4.processing.stop import StopScanner
from phi4.processing.tokenizer import TextStream, Tokenizer
from phi4.server.metrics import Metrics
from phi4.server.responses import MediumUse, PromptTokensDetails, Usage, Used


@dataclass(frozen=True)
class AnswerPiece:
    """What one token adds to one of the answers.

    Attributes:
        choice: which of the `n` answers.
        text: often empty: characters, and what may be a stop string, come when they are complete.
        token: the token; its text may come later.
        finish_reason: "stop" at an end token or stop string, "length" at a limit, None while the answer goes on.
    """

    choice: int
    text: str
    token: GeneratedToken
    finish_reason: Literal["stop", "length"] | None


class Answers:
    """The answers to one request, on their way; iterate once, and call `cancel` in the end, whatever happened.

    Attributes:
        num_tokens: generated so far, all answers together, end tokens included.
        rotary: the LongRoPE table of the last token; None before the first one.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, request: Request, stop: Sequence[str], metrics: Metrics
    ) -> None:
        """Hands the request to the engine; a grammar is compiled on the way, so this belongs into a thread.

        Raises:
            InputError: the conversation or a stop string cannot be used.
            CapacityError: the conversation is too long.
        """
        self._texts = [_AnswerText(tokenizer, stop) for _ in range(request.sampling.n)]
        self._metrics = metrics
        self.num_tokens = 0
        self.rotary: str | None = None
        self.request = request
        self._handle = engine.submit(request)
        metrics.prompt_tokens.inc(len(request.inputs.token_ids))

    @property
    def adapter(self) -> str | None:
        """The LoRA of the conversation."""
        return self._handle.adapter

    @property
    def prompt_log_probabilities(self) -> Sequence[LogProbabilities | None]:
        """What the model thought of the prompt's tokens, if the request asked; there once all answers are read."""
        return self._handle.prompt_log_probabilities

    @property
    def num_choices(self) -> int:
        """How many answers there will be."""
        return len(self._texts)

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        return usage_of(self.request.inputs, self.num_tokens, self.adapter, self.rotary, self._handle.cached_tokens)

    async def __aiter__(self) -> AsyncIterator[AnswerPiece]:
        open_choices = set(range(len(self._texts)))
        previous: dict[int, float] = {}
        async for token in self._handle:
            if token.choice not in open_choices:  # it met a stop string, and the engine was a step ahead
                continue
            self._count(token, previous.get(token.choice))
            previous[token.choice] = token.seconds
            piece = self._texts[token.choice].push(token)
            if piece.finish_reason is not None:
                open_choices.remove(token.choice)
                self._handle.cancel(token.choice)  # the engine has not heard of a stop string
            yield piece
            if not open_choices:
                return

    def cancel(self) -> None:
        """Ends what is still running."""
        self._handle.cancel()

    def _count(self, token: GeneratedToken, previous_seconds: float | None) -> None:
        self.num_tokens += 1
        self.rotary = token.rotary
        self._metrics.generated_tokens.inc()
        if previous_seconds is not None:
            self._metrics.token_gap_seconds.observe(token.seconds - previous_seconds)


class _AnswerText:
    """Tokens of one answer to text: no half characters, no stop strings, no end token."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._stream = TextStream(tokenizer)
        self._scanner = StopScanner(stop)

    def push(self, token: GeneratedToken) -> AnswerPiece:
        text = "" if token.finish_reason == "stop" else self._scanner.feed(self._stream.push(token.token_id))
        if self._scanner.stopped:
            return AnswerPiece(token.choice, text, token, "stop")
        if token.finish_reason is not None:
            # Bytes that never became a character, where a limit cut the answer, are no text.
            text += self._scanner.flush()
        return AnswerPiece(token.choice, text, token, token.finish_reason)


def usage_of(
    inputs: ModelInputs, num_tokens: int, adapter: str | None, rotary: str | None, num_cached: int = 0
) -> Usage:
    """What a request used: tokens of its prompt and its answers, adapter, rotary table, tokens of each medium."""
    per_modality = inputs.tokens_per_modality
    return Usage(
        prompt_tokens=len(inputs.token_ids),
        completion_tokens=num_tokens,
        total_tokens=len(inputs.token_ids) + num_tokens,
        prompt_tokens_details=PromptTokensDetails(
            per_modality.get("vision", 0), per_modality.get("speech", 0), num_cached
        ),
        phi4=Used(adapter, rotary, [MediumUse(medium.modality, medium.num_tokens) for medium in inputs.media]),
    )


def usage_headers(usage: Usage) -> dict[str, str]:
    """The same as headers of the response; in a stream they say what its first token was computed with."""
    media = ", ".join(f"{medium.modality}={medium.tokens}" for medium in usage.phi4.media)
    return {
        "phi4-adapter": usage.phi4.adapter or "none",
        "phi4-rotary": usage.phi4.rotary or "none",
        "phi4-prompt-tokens": str(usage.prompt_tokens),
        "phi4-media": media or "none",
    }
