"""How the tokens of an answer are chosen: the settings, and what each does to the scores of the vocabulary."""

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch

from phi4.errors import InputError

# OpenAI's interface allows as many answers and best tokens as this, and biases and penalties in these ranges.
MAX_ANSWERS = 128
MAX_LOGPROBS = 20
MAX_BIAS = 100.0
MAX_PENALTY = 2.0
# Long before this all tokens are as likely as each other; far above it scores become numbers that are none.
MAX_TEMPERATURE = 100.0
# Probabilities are fp32: a smaller share would round to nothing, and leave no token at all.
MIN_TOP_P = 1e-6


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one answer are chosen. The defaults are greedy.

    Attributes:
        max_tokens: most tokens to generate; the context may end an answer earlier.
        temperature: 0 takes the best token; otherwise scores are divided by it before sampling. From 1e-4 to 100 if not
            0: below 1e-4 nothing but the best token has a chance, and divided scores leave the range of fp32.
        top_k: keep this many best tokens, or None for all.
        top_p: keep the best tokens whose probabilities add up to this.
        min_p: keep tokens at least this fraction as probable as the best one.
        repetition_penalty: above 1, tokens that occurred (prompt included) lose score; 1 changes nothing.
        seed: makes sampling repeatable; None draws a fresh seed.
        n: answers to the same prompt; each has a random stream of its own, drawn from the seed.
        logprobs: report the log-probability of each token, and of this many best ones; None reports nothing. They are
            the model's own, before any setting here changes the scores.
        logit_bias: token id -> what is added to its score.
        presence_penalty: taken off the scores of tokens that the answer holds already.
        frequency_penalty: taken off them once for each time that they occur in the answer.
        stop_token_ids: end the answer, besides the model's own end tokens.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        biases = self.logit_bias.values()
        checks = {
            "max_tokens": (self.max_tokens, self.max_tokens >= 1, "at least 1"),
            "temperature": (
                self.temperature,
                self.temperature == 0.0 or 1e-4 <= self.temperature <= MAX_TEMPERATURE,
                f"0 (greedy) or from 0.0001 to {MAX_TEMPERATURE:g}",
            ),
            "top_k": (self.top_k, self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p, MIN_TOP_P <= self.top_p <= 1.0, f"from {MIN_TOP_P:g} to 1"),
            "min_p": (self.min_p, 0.0 <= self.min_p <= 1.0, "from 0 to 1"),
            "repetition_penalty": (self.repetition_penalty, 0.01 <= self.repetition_penalty <= 100, "0.01 to 100"),
            "seed": (self.seed, self.seed is None or 0 <= self.seed < 2**63, "from 0 to 2^63 - 1"),
            "n": (self.n, 1 <= self.n <= MAX_ANSWERS, f"from 1 to {MAX_ANSWERS}"),
            "logprobs": (
                self.logprobs,
                self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS,
                f"from 0 to {MAX_LOGPROBS}",
            ),
            "logit_bias": (
                dict(self.logit_bias),
                all(abs(bias) <= MAX_BIAS for bias in biases),
                f"from -{MAX_BIAS:g} to {MAX_BIAS:g} for each token",
            ),
            "presence_penalty": (self.presence_penalty, abs(self.presence_penalty) <= MAX_PENALTY, "from -2 to 2"),
            "stop_token_ids": (self.stop_token_ids, min(self.stop_token_ids, default=0) >= 0, "at least 0 each"),
            "frequency_penalty": (self.frequency_penalty, abs(self.frequency_penalty) <= MAX_PENALTY, "from -2 to 2"),
        }
        for name, (value, valid, rule) in checks.items():
            if not valid:
                raise InputError(f"{name} must be {rule}, not {value}")

    @property
    def changes_scores(self) -> bool:
        """Whether anything is done to the scores before the best token is taken or one is drawn."""
        return bool(
            self.repetition_penalty != 1.0 or self.logit_bias or self.presence_penalty or self.frequency_penalty
        )

    def generator(self, choice: int = 0) -> torch.Generator:
        """A source of randomness for one answer, on the CPU so that every device draws the same.

        Args:
            choice: which of the `n` answers; each has a stream that depends on the seed and on this alone.
        """
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        elif choice == 0:
            generator.manual_seed(self.seed)
        else:
            mixed = hashlib.sha256(f"{self.seed} {choice}".encode()).digest()
            generator.manual_seed(int.from_bytes(mixed[:7], "big"))
        return generator


def sample(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Chooses one token.

    Args:
        logits: scores of the vocabulary, fp32, [vocabulary]; left unchanged.
        sampling: the settings.
        generator: where randomness comes from.
    """
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    probabilities = torch.softmax(filter_logits(logits / sampling.temperature, sampling), dim=-1)
    return int(torch.multinomial(probabilities.cpu(), 1, generator=generator))


def adjust_logits(
    logits: torch.Tensor, sampling: Sampling, seen: Collection[int], counts: Mapping[int, int]
) -> torch.Tensor:
    """Applies biases and penalties.

    Args:
        logits: scores of the vocabulary, fp32, [vocabulary]; left unchanged.
        sampling: the settings.
        seen: ids of prompt and answer so far.
        counts: how often each token occurs in the answer so far.
    """
    if sampling.logit_bias:
        logits = _add(logits, sampling.logit_bias)
    if sampling.repetition_penalty != 1.0:
        logits = penalise(logits, seen, sampling.repetition_penalty)
    if counts and (sampling.presence_penalty or sampling.frequency_penalty):
        presence, frequency = sampling.presence_penalty, sampling.frequency_penalty
        logits = _add(logits, {token_id: -presence - frequency * count for token_id, count in counts.items()})
    return logits


def _add(logits: torch.Tensor, amounts: Mapping[int, float]) -> torch.Tensor:
    ids = torch.tensor(list(amounts), device=logits.device)
    return logits.index_add(0, ids, torch.tensor(list(amounts.values()), dtype=logits.dtype, device=logits.device))


def penalise(logits: torch.Tensor, seen: Collection[int], penalty: float) -> torch.Tensor:
    """Divides positive and multiplies negative scores of tokens that occurred (CTRL, arXiv 1909.05858, section 4.1)."""
    ids = torch.tensor(sorted(set(seen)), device=logits.device)
    scores = logits[ids]
    return logits.scatter(0, ids, torch.where(scores > 0, scores / penalty, scores * penalty))


def filter_logits(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Sets the scores of excluded tokens to minus infinity; the best token always stays.

    The filters apply one after the other: top-k, top-p of what is left, min-p of what is left.
    """
    if sampling.top_k is not None and sampling.top_k < logits.shape[0]:
        kept = torch.topk(logits, sampling.top_k).indices
        logits = torch.full_like(logits, -math.inf).scatter(0, kept, logits[kept])
    if sampling.top_p < 1.0:
        ordered, order = logits.sort(descending=True, stable=True)
        probabilities = torch.softmax(ordered, dim=-1)
        mass_before = probabilities.cumsum(0) - probabilities
        kept = order[mass_before < sampling.top_p]
        logits = torch.full_like(logits, -math.inf).scatter(0, kept, logits[kept])
    if sampling.min_p > 0.0:
        logits = logits.masked_fill(logits < logits.max() + math.log(sampling.min_p), -math.inf)
    return logits
