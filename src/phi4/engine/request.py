"""What the engine is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from phi4.config import DecoderConfig
from phi4.engine.constraint import Constraint
from phi4.engine.sampler import LogProbabilities
from phi4.engine.sampling import MAX_LOGPROBS, Sampling
from phi4.errors import CapacityError, InputError
from phi4.inputs import ModelInputs, Rotary

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Request:
    """One conversation and how to answer it.

    Attributes:
        inputs: the conversation.
        sampling: how tokens are chosen, and how many answers there are.
        priority: requests with a greater one come first, and take the place of those with a smaller one.
        constrain: makes what each answer is held to, or None for free answers.
        prompt_logprobs: report the log-probability of each token of the prompt, and of this many best ones in its
            place; None reports nothing. The first of `n` answers brings them, to the handle.
        scored_from: the first token of the prompt that is reported. What comes before may be taken from the cache.
    """

    inputs: ModelInputs
    sampling: Sampling
    priority: int = 0
    constrain: Callable[[], Constraint] | None = None
    prompt_logprobs: int | None = None
    scored_from: int = 1

    def __post_init__(self) -> None:
        if self.prompt_logprobs is not None and not 0 <= self.prompt_logprobs <= MAX_LOGPROBS:
            raise InputError(f"prompt_logprobs must be from 0 to {MAX_LOGPROBS}, not {self.prompt_logprobs}")
        if self.scored_from < 1:
            raise InputError(f"scored_from must be at least 1, for nothing precedes token 0, not {self.scored_from}")


@dataclass(frozen=True)
class GeneratedToken:
    """One token of an answer.

    Attributes:
        choice: which of the request's `n` answers it belongs to.
        token_id: the token chosen.
        finish_reason: None while the answer goes on; "stop" when `token_id` is an end token, "length" at a limit.
        rotary: the LongRoPE table that it was computed with.
        log_probabilities: the model's, if the request asked for them.
        seconds: time from the request's submission to this token.
    """

    choice: int
    token_id: int
    finish_reason: FinishReason | None
    rotary: Rotary
    log_probabilities: LogProbabilities | None
    seconds: float


def check_inputs(config: DecoderConfig, inputs: ModelInputs) -> None:
    """Refuses a conversation that the model cannot hold.

    Raises:
        InputError: it is empty, or an id is outside the vocabulary.
        CapacityError: it is longer than the context.
    """
    if not inputs.token_ids:
        raise InputError("the prompt is empty: there is nothing to answer")
    _check_ids(config, inputs.token_ids)
    if len(inputs.token_ids) > config.max_position_embeddings:
        raise CapacityError(
            f"the prompt has {len(inputs.token_ids)} tokens, more than the context of "
            f"{config.max_position_embeddings}; shorten the text, or use fewer or smaller media"
        )


def check_request(config: DecoderConfig, request: Request) -> None:
    """Refuses a request that the model cannot answer; what is raised is as for `check_inputs`."""
    check_inputs(config, request.inputs)
    _check_ids(config, tuple(request.sampling.logit_bias))


def _check_ids(config: DecoderConfig, token_ids: tuple[int, ...]) -> None:
    outside = [token_id for token_id in token_ids if not 0 <= token_id < config.vocab_size]
    if outside:
        raise InputError(f"token id {outside[0]} is outside the vocabulary of {config.vocab_size} tokens")
