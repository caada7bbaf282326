"""How probable a text is: token ids of contexts and continuations, scored by the engine."""

from collections.abc import Sequence
from dataclasses import dataclass

from phi4.engine.engine import Engine
from phi4.engine.handle import Handle
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.errors import InputError
from phi4.inputs import ModelInputs
from phi4.processing.tokenizer import Tokenizer

# The engine always generates; one token is the least (docs/decisions/0022-prompts-are-scored-by-the-engine.md).
_ONE_TOKEN = Sampling(max_tokens=1)


@dataclass(frozen=True)
class Continuation:
    """Tokens that are scored, behind tokens that are not.

    Attributes:
        context: ids of what comes before, at least one.
        scored: ids of what is scored.
    """

    context: tuple[int, ...]
    scored: tuple[int, ...]


@dataclass(frozen=True)
class Likelihood:
    """What the model thought of a continuation.

    Attributes:
        log_likelihood: natural logarithm of its probability.
        is_greedy: whether each of its tokens was the most probable one.
    """

    log_likelihood: float
    is_greedy: bool


def encode_continuation(
    tokenizer: Tokenizer, context: str, text: str, prefix_id: int, *, allow_special: bool = False
) -> Continuation:
    """Encodes context and text as one, since tokens may reach over the border, and parts them where the context ends.

    White space at the context's end is counted with the text, as lm-evaluation-harness does: tokens begin with it.

    Args:
        tokenizer: the model's.
        context: what comes before; empty for nothing.
        text: what is scored.
        prefix_id: token that stands before everything else if there is no context.
        allow_special: whether control tokens in the texts count as such.

    Raises:
        InputError: there is no text to score, or it cannot be encoded.
    """
    stripped = context.rstrip()
    context, text = stripped, context[len(stripped) :] + text
    before = tokenizer.encode(context, allow_special=allow_special) if context else []
    whole = tokenizer.encode(context + text, allow_special=allow_special)
    scored = tuple(whole[len(before) :])
    if not scored:
        raise InputError(f"there is nothing to score behind {context[-40:]!r}: the text {text!r} has no tokens")
    return Continuation(tuple(before) or (prefix_id,), scored)


def encode_windows(
    tokenizer: Tokenizer, text: str, prefix_id: int, max_tokens: int, *, allow_special: bool = False
) -> list[Continuation]:
    """Cuts a text into pieces that fit the context; each token is scored once, the first behind the prefix token.

    Each piece but the first sees one token of the piece before it; the last one is moved back, so that it sees as
    much as fits (lm-evaluation-harness counts this way, with a context of one token).

    Args:
        tokenizer: the model's.
        text: what is scored.
        prefix_id: token that stands before everything else.
        max_tokens: of a piece.
        allow_special: whether control tokens in the text count as such.
    """
    token_ids = tuple(tokenizer.encode(text, allow_special=allow_special))
    if not token_ids:
        raise InputError("an empty text has no perplexity")
    whole = (prefix_id, *token_ids)
    windows = []
    for start in range(0, len(token_ids), max_tokens):
        end = min(start + max_tokens, len(token_ids))
        # Positions in `whole` are one further; its token at `end` is the last that is scored.
        first = max(0, end - max_tokens) if start else 0
        windows.append(Continuation(whole[first : start + 1], whole[start + 1 : end + 1]))
    return windows


def score_continuations(engine: Engine, continuations: Sequence[Continuation]) -> list[Likelihood]:
    """Scores all of them together.

    Raises:
        CapacityError: one of them is longer than the context or the cache.
    """
    return score_requests(
        engine,
        [scored_request(ModelInputs((*one.context, *one.scored)), len(one.context)) for one in continuations],
    )


def scored_request(inputs: ModelInputs, num_context: int) -> Request:
    """A request for the scores of a prompt.

    Args:
        inputs: the prompt.
        num_context: how many of its first tokens are not scored, at least one.
    """
    return Request(inputs, _ONE_TOKEN, prompt_logprobs=1, scored_from=num_context)


def score_requests(engine: Engine, requests: Sequence[Request]) -> list[Likelihood]:
    """Scores the prompts of `scored_request` together; errors as `score_continuations` has them."""
    handles = [engine.submit(request) for request in requests]
    try:
        return [_read(handle) for handle in handles]
    finally:
        for handle in handles:
            handle.cancel()


def _read(handle: Handle) -> Likelihood:
    for _ in handle:
        pass
    start = handle.request.scored_from
    token_ids = handle.request.inputs.token_ids[start:]
    places = [place for place in handle.prompt_log_probabilities[start:] if place is not None]
    is_greedy = all(place.best[0][0] == token_id for place, token_id in zip(places, token_ids, strict=True))
    return Likelihood(sum(place.chosen for place in places), is_greedy)
