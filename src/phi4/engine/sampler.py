"""Chooses the next token of every row of a step from the model's scores."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from phi4.engine.constraint import Constraint
from phi4.engine.sampling import Sampling, adjust_logits, sample
from phi4.errors import CheckpointError
from phi4.kernels.scores import best_scores


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
    """Chooses the tokens of one answer: its random stream, what its penalties must know of the tokens so far."""

    def __init__(
        self,
        sampling: Sampling,
        prompt_token_ids: Sequence[int],
        *,
        choice: int = 0,
        end_token_ids: frozenset[int] = frozenset(),
        constraint: Constraint | None = None,
    ) -> None:
        """Starts an answer.

        Args:
            sampling: the settings.
            prompt_token_ids: what the answer follows.
            choice: which of the `n` answers it is.
            end_token_ids: the model's own; with those of the settings they end the answer.
            constraint: what the answer is held to.
        """
        self.sampling = sampling
        self.end_token_ids = end_token_ids | frozenset(sampling.stop_token_ids)
        self.constraint = constraint
        self.generator = sampling.generator(choice)
        self.seen = set(prompt_token_ids)
        self.counts: Counter[int] = Counter()

    def choose(self, logits: torch.Tensor, best: int) -> Choice:
        """Chooses a token and remembers it.

        Args:
            logits: scores of the vocabulary, finite, [vocabulary].
            best: the token with the highest score.
        """
        sampling, token_id = self.sampling, best
        if self.constraint is not None or sampling.changes_scores or sampling.temperature:
            adjusted = adjust_logits(logits.float(), sampling, self.seen, self.counts)
            token_id = sample(self._constrained(adjusted), sampling, self.generator)
        if self.constraint is not None:
            self.constraint.advance(token_id)
        self.seen.add(token_id)
        self.counts[token_id] += 1
        if sampling.logprobs is None:
            return Choice(token_id, None)
        (found,) = log_probabilities(logits[None].float(), [token_id], sampling.logprobs)
        return Choice(token_id, found)

    def _constrained(self, logits: torch.Tensor) -> torch.Tensor:
        allowed = None if self.constraint is None else self.constraint.allowed()
        return logits if allowed is None else logits.masked_fill(~allowed.to(logits.device), -math.inf)


def log_probabilities(logits: torch.Tensor, token_ids: Sequence[int], num_best: int) -> list[LogProbabilities]:
    """What the model thought of some places.

    Args:
        logits: scores of the vocabulary, fp32, [places, vocabulary].
        token_ids: the token that stands at each place.
        num_best: how many of the most probable tokens to report.
    """
    logarithms = torch.log_softmax(logits, dim=-1)
    chosen = logarithms.gather(1, torch.tensor(token_ids, device=logits.device)[:, None])[:, 0].tolist()
    values, ids = torch.topk(logarithms, min(num_best, logits.shape[1]))
    best = [tuple(zip(*place, strict=True)) for place in zip(ids.tolist(), values.tolist(), strict=True)]
    return [LogProbabilities(*place) for place in zip(chosen, best, strict=True)]


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


def choose_tokens(questions: Sequence[Question], logits: torch.Tensor) -> list[list[Choice] | Exception]:
    """Chooses the next tokens of each row: one, and another one behind each guess that was right and no end token.

    Each token is chosen from the scores that it would have been chosen from without guesses, and by the same draw.

    Args:
        questions: one for each piece of the step.
        logits: of all their places, [places, vocabulary].

    Returns:
        The tokens of each row; or its error, if its scores are not finite or its constraint failed.
    """
    if not logits.numel():
        return [[] for _ in questions]
    best, finite = best_scores(logits)
    answers: list[list[Choice] | Exception] = []
    start = 0
    for question in questions:
        places = slice(start, start + question.num_places)
        start = places.stop
        try:
            answers.append(_choose_row(question, logits[places], best[places], finite[places]))
        except Exception as error:  # of this row alone: a constraint comes from outside
            answers.append(error)
    return answers


def _choose_row(question: Question, logits: torch.Tensor, best: Sequence[int], finite: Sequence[bool]) -> list[Choice]:
    if not all(finite):
        raise CheckpointError(
            "the model's scores are not finite numbers: its weights are damaged, or overflow in their dtype; "
            "check the files, or load them as bfloat16 or float32"
        )
    choices: list[Choice] = []
    for place, (scores, first) in enumerate(zip(logits, best, strict=True)):
        choices.append(question.sampler.choose(scores, first))
        token_id = choices[-1].token_id
        if question.drafts[place : place + 1] != (token_id,) or token_id in question.sampler.end_token_ids:
            break
    return choices
