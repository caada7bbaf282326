"""From the scores of the vocabulary to the next token."""

import math
from dataclasses import dataclass

import torch

from phi4.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one answer are chosen. The defaults are greedy.

    Attributes:
        max_tokens: most tokens to generate; the context may end an answer earlier.
        temperature: 0 takes the best token; otherwise scores are divided by it before sampling. At least 1e-4 if not
            0: below that nothing but the best token has a chance, and divided scores leave the range of fp32.
        top_k: keep this many best tokens, or None for all.
        top_p: keep the best tokens whose probabilities add up to this.
        min_p: keep tokens at least this fraction as probable as the best one.
        repetition_penalty: above 1, tokens that occurred (prompt included) lose score; 1 changes nothing.
        seed: makes sampling repeatable; None draws a fresh seed.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        checks = {
            "max_tokens": (self.max_tokens, self.max_tokens >= 1, "at least 1"),
            "temperature": (
                self.temperature,
                self.temperature == 0.0 or 1e-4 <= self.temperature < math.inf,
                "0 (greedy) or at least 0.0001",
            ),
            "top_k": (self.top_k, self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p, 0.0 < self.top_p <= 1.0, "above 0 and at most 1"),
            "min_p": (self.min_p, 0.0 <= self.min_p <= 1.0, "from 0 to 1"),
            "repetition_penalty": (self.repetition_penalty, 0.01 <= self.repetition_penalty <= 100, "0.01 to 100"),
            "seed": (self.seed, self.seed is None or 0 <= self.seed < 2**63, "from 0 to 2^63 - 1"),
        }
        for name, (value, valid, rule) in checks.items():
            if not valid:
                raise InputError(f"{name} must be {rule}, not {value}")

    def generator(self) -> torch.Generator:
        """A source of randomness for one answer, on the CPU so that every device draws the same."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator


def sample(logits: torch.Tensor, sampling: Sampling, seen: list[int], generator: torch.Generator) -> int:
    """Chooses one token.

    Args:
        logits: scores of the vocabulary, fp32, [vocabulary]; left unchanged.
        sampling: the settings.
        seen: ids of prompt and answer so far, for the repetition penalty.
        generator: where randomness comes from.
    """
    if sampling.repetition_penalty != 1.0:
        logits = penalise(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    probabilities = torch.softmax(filter_logits(logits / sampling.temperature, sampling), dim=-1)
    return int(torch.multinomial(probabilities.cpu(), 1, generator=generator))


def penalise(logits: torch.Tensor, seen: list[int], penalty: float) -> torch.Tensor:
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
