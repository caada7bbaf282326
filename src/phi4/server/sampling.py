"""How a request wants its tokens chosen, in the engine's terms."""

from phi4.engine.sampling import Sampling
from phi4.errors import CapacityError
from phi4.server.errors import invalid_field
from phi4.server.schema import SamplingFields


def read_sampling(
    fields: SamplingFields,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    num_prompt_tokens: int,
    max_context: int,
    default_temperature: float = 1.0,
) -> Sampling:
    """Reads the settings of a request; what is not given has OpenAI's default.

    Args:
        fields: the request.
        max_tokens: most tokens to generate; None takes what the context has left.
        logprobs: how many of the best tokens to report with each token; None reports nothing.
        num_prompt_tokens: length of the prompt.
        max_context: most tokens of prompt and answer.
        default_temperature: of requests that give none.

    Raises:
        InputError: a value is out of range.
        CapacityError: the prompt fills the context.
    """
    room = max_context - num_prompt_tokens
    if room < 1:
        raise CapacityError(f"the prompt has {num_prompt_tokens} tokens, which fill the context of {max_context}")
    defaults = Sampling()
    return Sampling(
        max_tokens=room if max_tokens is None else min(max_tokens, room),
        temperature=_given(fields.temperature, default_temperature),
        top_k=fields.top_k,
        top_p=_given(fields.top_p, defaults.top_p),
        min_p=_given(fields.min_p, defaults.min_p),
        repetition_penalty=_given(fields.repetition_penalty, defaults.repetition_penalty),
        seed=fields.seed,
        n=1 if fields.n is None else fields.n,
        logprobs=logprobs,
        logit_bias=_read_bias(fields.logit_bias or {}),
        presence_penalty=_given(fields.presence_penalty, defaults.presence_penalty),
        frequency_penalty=_given(fields.frequency_penalty, defaults.frequency_penalty),
        stop_token_ids=tuple(fields.stop_token_ids or ()),
    )


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _read_bias(raw: dict[str, float]) -> dict[int, float]:
    """JSON has no integers for keys."""
    # Python reads no number of thousands of digits, and no vocabulary has one.
    wrong = [key[:20] for key in raw if not (key.isascii() and key.isdecimal() and len(key) < 20)]
    if wrong:
        raise invalid_field(f"logit_bias has {wrong[0]!r} for a token id; it must be a whole number", "logit_bias")
    return {int(key): bias for key, bias in raw.items()}
