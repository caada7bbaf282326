"""Times the passes of a language model through the engine that serves it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from phi4.engine.engine import Engine
from phi4.engine.limits import SchedulerLimits
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.errors import InputError
from phi4.inputs import ModelInputs
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal

# What rows that are decoded begin with: a short context, so that weights are what a step reads.
DECODE_PROMPT_TOKENS = 32


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        prompt_tokens: of the prompt whose prefill is timed.
        new_tokens: decoding steps that are timed.
        rows: conversations that are decoded together.
    """

    prompt_tokens: int
    new_tokens: int
    rows: int


@dataclass(frozen=True)
class Timing:
    """Seconds of one round: until a prompt's first token, and of all decoding steps of one row and of many."""

    prefill: float
    decode: float
    decode_rows: float


def time_rounds(
    model: Phi4Mini | Phi4Multimodal, sizes: Sizes, rounds: int, report: Callable[[int], None]
) -> list[Timing]:
    """Runs everything in turn, some times over after one round that is not counted.

    Args:
        model: whose language model is timed.
        sizes: what is timed.
        rounds: that count.
        report: called after each round with their number so far, the uncounted one included.

    Raises:
        InputError: a conversation is longer than the model's context.
    """
    longest = max(sizes.prompt_tokens + 1, DECODE_PROMPT_TOKENS + sizes.new_tokens + 1)
    context = model.decoder_config.max_position_embeddings
    if longest > context:
        raise InputError(f"{longest} tokens of prompt and answer do not fit the model's context of {context}")
    # The prompts of all rows are read in one step, so that all begin to be decoded together.
    limits = SchedulerLimits(
        max_step_tokens=max(1024, sizes.rows * DECODE_PROMPT_TOKENS), max_rows=sizes.rows, reuse_prefixes=False
    )
    needed = max(longest, sizes.rows * (DECODE_PROMPT_TOKENS + sizes.new_tokens + 1))
    # A row may leave most of its last block empty.
    engine = Engine(model, (), limits, cache_tokens=needed + (sizes.rows + 1) * limits.block_tokens)
    prompts = partial(_prompts, torch.Generator().manual_seed(0), model.decoder_config.vocab_size)
    timings = []
    for done in range(1, rounds + 2):
        (long,) = prompts(1, sizes.prompt_tokens)
        prefill = _prefill_seconds(engine, long)
        decode = _decode_seconds(engine, prompts(1, DECODE_PROMPT_TOKENS), sizes.new_tokens)
        together = _decode_seconds(engine, prompts(sizes.rows, DECODE_PROMPT_TOKENS), sizes.new_tokens)
        timings.append(Timing(prefill, decode, together))
        report(done)
    engine.close()
    return timings[1:]


def _prefill_seconds(engine: Engine, prompt: ModelInputs) -> float:
    (token,) = engine.submit(Request(prompt, Sampling(max_tokens=1)))
    return token.seconds


def _decode_seconds(engine: Engine, prompts: Sequence[ModelInputs], new_tokens: int) -> float:
    """From the step that reads the prompts to the one that ends the answers."""
    first, last = 0.0, 0.0
    for _, token in engine.generate([Request(prompt, Sampling(max_tokens=new_tokens + 1)) for prompt in prompts]):
        first, last = first or token.seconds, token.seconds
    return last - first


def _prompts(generator: torch.Generator, vocab_size: int, rows: int, tokens: int) -> list[ModelInputs]:
    """Random prompts of tokens that every vocabulary has."""
    ids = torch.randint(0, min(vocab_size, 10_000), (rows, tokens), generator=generator)
    return [ModelInputs(tuple(row)) for row in ids.tolist()]
