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


@dataclass(frozen=True, eq=False)
class Question:
    """What one row asks the scores of a step.

    Attributes:
        sampler: the row's.
        drafts: guesses whose scores are there too.
        num_places: places that are scored: 0, or 1 and as many as there are drafts.
    """

    sampler: Sampler
    drafts: tuple[int, ...]
    num_places: int


def choose_tokens(questions: Sequence[Question], logits: torch.Tensor) -> list[list[Choice] | CheckpointError]:
    """Chooses the next tokens of each row: one, and another one behind each guess that was right.

    Each token is chosen from the scores that it would have been chosen from without guesses, and by the same draw.

    Args:
        questions: one for each piece of the step.
        logits: of all their places, fp32, [places, vocabulary].

    Returns:
        The tokens of each row; or, if its scores are not finite, its error.
    """
    if not logits.numel():
        return [[] for _ in questions]
    finite = torch.isfinite(logits).all(dim=-1).tolist()
    best = logits.argmax(dim=-1).tolist()
    answers: list[list[Choice] | CheckpointError] = []
    start = 0
    for question in questions:
        stop = start + question.num_places
        if all(finite[start:stop]):
            answers.append(_choose_row(question, logits[start:stop], best[start:stop]))
        else:
            answers.append(_not_finite())
        start = stop
    return answers


def _choose_row(question: Question, logits: torch.Tensor, best: Sequence[int]) -> list[Choice]:
    choices: list[Choice] = []
    for place, (scores, first) in enumerate(zip(logits, best, strict=True)):
        choices.append(question.sampler.choose(scores, first))
        if place < len(question.drafts) and choices[-1].token_id != question.drafts[place]:
            break
    return choices


def _not_finite() -> CheckpointError:
    return CheckpointError(
        "the model's scores are not finite numbers: its weights are damaged, or overflow in their dtype; "
        "check the files, or load them as bfloat16 or float32"
    )
