"""What answers are worth: each record adds statistics, and their sums become the number and its resamples."""

import math
import re
import string
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from phi4.errors import DataError
from phi4.eval import language_metrics
from phi4.eval.task import Item, Metric, Reply, Total
from phi4.score import edit_distance

Sums = npt.NDArray[np.float64]

# Below this similarity an answer of a document question counts for nothing (ANLS, arXiv 1907.00490).
ANLS_THRESHOLD = 0.5
ARTICLES = ("a", "an", "the")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBERS)}


def total(kind: Total, sums: Sums) -> float:
    """The value that summed statistics stand for.

    Args:
        kind: of a metric.
        sums: of the statistics of its records, [statistics].

    Raises:
        DataError: nothing was counted.
    """
    if kind == "bleu":
        return language_metrics.bleu_of(sums)
    if kind == "chrf":
        return language_metrics.chrf_of(sums)
    if sums[1] == 0:
        raise DataError("the references hold nothing to compare answers with; every one is empty")
    share = float(sums[0] / sums[1])
    if kind == "perplexity":
        return math.exp(min(-share, 700.0))
    return -share / math.log(2) if kind == "bits" else share


def exact_match(extract: Callable[[str], str], name: str = "exact match") -> Metric:
    """Share of answers that are one of the references once both went through `extract`; several answers: the first."""

    def statistics(item: Item, reply: Reply) -> Sequence[float]:
        return (float(extract(reply.texts[0]) in {extract(right) for right in item.references}), 1.0)

    return Metric(name, statistics)


def _accuracy(item: Item, reply: Reply) -> Sequence[float]:
    return (float(int(np.argmax(reply.log_likelihoods)) == item.right), 1.0)


def _accuracy_by_length(item: Item, reply: Reply) -> Sequence[float]:
    # The space that parts a choice from its context is no letter of it, as lm-evaluation-harness counts.
    lengths = np.array([max(1, len(choice.removeprefix(" "))) for choice in item.choices])
    return (float(int(np.argmax(np.array(reply.log_likelihoods) / lengths)) == item.right), 1.0)


def _anls(item: Item, reply: Reply) -> Sequence[float]:
    return (max(_similarity(right, reply.texts[0]) for right in item.references), 1.0)


def _similarity(right: str, given: str) -> float:
    right, given = " ".join(right.lower().split()), " ".join(given.lower().split())
    longest = max(len(right), len(given))
    similarity = 1 - edit_distance(right, given) / longest if longest else 1.0
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def _relaxed(item: Item, reply: Reply) -> Sequence[float]:
    return (float(any(_is_near(right, reply.texts[0]) for right in item.references)), 1.0)


def _is_near(right: str, given: str) -> bool:
    """Within 5 % of a number that is not 0, else the same words (ChartQA, arXiv 2203.10244)."""
    expected, answered = _number(right), _number(given)
    if expected and answered is not None:
        return abs(answered - expected) <= 0.05 * abs(expected)
    return normalise(right) == normalise(given)


def _number(text: str) -> float | None:
    cleaned = text.strip().rstrip(".").replace(",", "").removeprefix("$")
    try:
        number = float(cleaned.rstrip("%")) / (100 if cleaned.endswith("%") else 1)
    except ValueError:
        return None
    # "Nan" is a town, too.
    return number if math.isfinite(number) else None


def _vote(item: Item, reply: Reply) -> Sequence[float]:
    """What ten people said: an answer that three of them gave counts in full (VQA accuracy, arXiv 1505.00468)."""
    given = _plainly(reply.texts[0])
    matches = [_plainly(right) == given for right in item.references]
    # The mean over all sets that leave one person out.
    shares = [min(1.0, (sum(matches) - match) / 3) for match in matches]
    return (sum(shares) / len(shares), 1.0)


def _plainly(text: str) -> str:
    """As VQA's own evaluation: small letters, digits for numbers, punctuation parts words, no articles."""
    kept = re.sub(r"(?<=\d),(?=\d)|\.(?!\d)|'", "", text.lower())
    words = [DIGITS.get(word, word) for word in re.sub(r"[;/\[\]\"{}()=+\\_><@`,?!-]", " ", kept).split()]
    return " ".join(word for word in words if word not in ARTICLES)


def _contains(item: Item, reply: Reply) -> Sequence[float]:
    between = " " if item.details.get("spaces", True) else ""
    given = between.join(reply.texts[0].lower().split())
    return (float(any(between.join(right.lower().split()) in given for right in item.references)), 1.0)


def _per_word(item: Item, reply: Reply) -> Sequence[float]:
    return (reply.log_likelihoods[0], float(len(re.split(r"\s+", item.choices[0]))))


def _per_byte(item: Item, reply: Reply) -> Sequence[float]:
    return (reply.log_likelihoods[0], float(len(item.choices[0].encode())))


def normalise(text: str) -> str:
    """Small letters, no punctuation, no articles, single spaces."""
    words = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    return " ".join(word for word in words if word not in ARTICLES)


ACCURACY = Metric("accuracy", _accuracy)
ACCURACY_BY_LENGTH = Metric("accuracy, by length", _accuracy_by_length)
ANLS = Metric("ANLS", _anls)
RELAXED_ACCURACY = Metric("relaxed accuracy", _relaxed)
VQA_ACCURACY = Metric("VQA accuracy", _vote)
CONTAINS = Metric("contains", _contains)
WORD_PERPLEXITY = Metric("word perplexity", _per_word, total="perplexity", higher_is_better=False)
BITS_PER_BYTE = Metric("bits per byte", _per_byte, total="bits", higher_is_better=False)
