"""Chooses the next token of every row of a step from the model's scores."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from phi4.engine.sampling import Sampling, adjust_logits, sample
from phi4.errors import CheckpointError


@dataclass(frozen=True)
class LogProbabilities:
    """What the model itself thought of a place in an answer.

    Attributes:
        chosen: natural logarithm of the probability of the token that was chosen.
        best: token ids and log-probabilities of the most probable tokens, best first.
    """

    chosen: float
    best: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Choice:
    """The next token of a row, and its log-probabilities if they were asked for."""

    token_id: int
    log_probabilities: LogProbabilities | None


class Sampler:
    """The random stream of one answer, and what its penalties must know of the tokens so far."""

    def __init__(self, sampling: Sampling, choice: int, prompt_token_ids: Sequence[int]) -> None:
        self.sampling = sampling
        self.generator = sampling.generator(choice)
        self.seen = set(prompt_token_ids)
        self.counts: Counter[int] = Counter()

    def choose(self, logits: torch.Tensor, best: int) -> Choice:
        """Chooses a token and remembers it.

        Args:
            logits: scores of the vocabulary, fp32 and finite, [vocabulary].
            best: the token with the highest score.
        """
        sampling, token_id = self.sampling, best
        if sampling.changes_scores:
            token_id = sample(adjust_logits(logits, sampling, self.seen, self.counts), sampling, self.generator)
        elif sampling.temperature:
            token_id = sample(logits, sampling, self.generator)
        self.seen.add(token_id)
        self.counts[token_id] += 1
        if sampling.logprobs is None:
            return Choice(token_id, None)
        return Choice(token_id, log_probabilities(logits, token_id, sampling.logprobs))


def log_probabilities(logits: torch.Tensor, token_id: int, num_best: int) -> LogProbabilities:
    """The log-probability of a token and of the best ones, from fp32 scores [vocabulary]."""
    logarithms = torch.log_softmax(logits, dim=-1)
    values, ids = torch.topk(logarithms, min(num_best, logits.shape[0]))
    best = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return LogProbabilities(float(logarithms[token_id]), best)


def choose_tokens(samplers: Sequence[Sampler], logits: torch.Tensor) -> list[Choice | CheckpointError]:
    """Chooses a token for each row; a row whose scores are not finite gets an error of its own.

    Args:
        samplers: one for each row.
        logits: fp32, [rows, vocabulary].
    """
    if not samplers:
        return []
    finite = torch.isfinite(logits).all(dim=-1).tolist()
    best = logits.argmax(dim=-1).tolist()
    return [
        sampler.choose(scores, first) if usable else _not_finite()
        for sampler, scores, first, usable in zip(samplers, logits, best, finite, strict=True)
    ]


def _not_finite() -> CheckpointError:
    return CheckpointError(
        "the model's scores are not finite numbers: its weights are damaged, or overflow in their dtype; "
        "check the files, or load them as bfloat16 or float32"
    )
