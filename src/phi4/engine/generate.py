"""Generation: many conversations, of any mixture of modalities, advance together and each as if it were alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import torch

from phi4.engine.language_model import LanguageModel
from phi4.engine.sampling import Sampling
from phi4.engine.simple_row import Row
from phi4.inputs import ModelInputs, Rotary

FinishReason = Literal["stop", "length"]

# Most tokens of one step, which bounds the memory of activations and masks: rows share them, and long prompts are
# prefilled in pieces.
MAX_STEP_TOKENS = 1024


@dataclass(frozen=True)
class Request:
    """One conversation and how to answer it."""

    inputs: ModelInputs
    sampling: Sampling


@dataclass(frozen=True)
class GeneratedToken:
    """One event of generation.

    Attributes:
        request: index of the request.
        token_id: the token chosen.
        finish_reason: None while the answer goes on; "stop" when `token_id` is an end token, "length" at a limit.
        rotary: the LongRoPE table that it was computed with.
    """

    request: int
    token_id: int
    finish_reason: FinishReason | None
    rotary: Rotary


def generate(
    model: LanguageModel, requests: Sequence[Request], eos_token_ids: Sequence[int]
) -> Iterator[GeneratedToken]:
    """Answers all requests together and yields their tokens as they come.

    Requests are checked and their media encoded at once, before the first token is asked for.

    Args:
        model: a language model, with or without modalities.
        requests: the conversations.
        eos_token_ids: ids that end an answer; the release has two, 200020 and 199999 (facts sheet 1.1).

    Raises:
        InputError: a conversation is empty, or needs a modality that the model lacks.
        CapacityError: a conversation is longer than the context.
    """
    with torch.inference_mode():
        rows = {index: Row(model, request.inputs, request.sampling) for index, request in enumerate(requests)}
    return _answer(model, rows, frozenset(eos_token_ids))


def _answer(model: LanguageModel, rows: dict[int, Row], eos_token_ids: frozenset[int]) -> Iterator[GeneratedToken]:
    while rows:
        for index, token_id in _advance(model, rows):
            reason: FinishReason | None = None
            if token_id in eos_token_ids:
                reason = "stop"
            elif rows[index].is_full:
                reason = "length"
            token = GeneratedToken(index, token_id, reason, rows[index].rotary)
            if reason is not None:
                del rows[index]
            yield token


@torch.inference_mode()
def _advance(model: LanguageModel, rows: dict[int, Row]) -> list[tuple[int, int]]:
    """Runs one packed step; returns the new token of each row whose tokens are all cached by now."""
    share = max(1, MAX_STEP_TOKENS // len(rows))
    segments = {index: row.next_segment(share) for index, row in rows.items()}
    embeddings = [
        rows[index].embed(model, segment.cached, segment.cached + segment.length) for index, segment in segments.items()
    ]
    ends = accumulate(segment.length for segment in segments.values())
    last_rows = {
        index: end - 1
        for (index, segment), end in zip(segments.items(), ends, strict=True)
        if segment.cached + segment.length == len(rows[index].token_ids)
    }
    hidden = model(torch.cat(embeddings), model.step(list(segments.values()), list(last_rows.values())))
    for index, segment in segments.items():
        rows[index].num_cached += segment.length
    logits = model.logits(hidden).float()
    return [(index, rows[index].append(scores)) for index, scores in zip(last_rows, logits, strict=True)]


@torch.inference_mode()
def score(model: LanguageModel, inputs: Sequence[ModelInputs]) -> list[torch.Tensor]:
    """Runs whole conversations in one packed pass without a cache.

    Returns:
        The logits of every position, one [tokens, vocabulary] tensor per conversation, in the model's dtype.
    """
    rows = [Row(model, conversation, Sampling()) for conversation in inputs]
    lengths = [row.num_prompt_tokens for row in rows]
    segments = [replace(row.next_segment(length), cache=None) for row, length in zip(rows, lengths, strict=True)]
    embeddings = [row.embed(model, 0, length) for row, length in zip(rows, lengths, strict=True)]
    hidden = model(torch.cat(embeddings), model.step(segments))
    return list(model.logits(hidden).split(lengths))
