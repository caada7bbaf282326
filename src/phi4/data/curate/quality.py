"""A quality classifier: logistic regression on hashed words and pairs of words, learnt from labelled examples."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import xxhash
from datatrove.data import Document
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from phi4.data.curate.curation import Filter
from phi4.data.curate.decontaminate import words_of
from phi4.errors import CheckpointError, DataError

FORMAT = "phi4-quality"
# Weights: 1 MiB of float32.
FEATURES = 2**18
EPOCHS = 5
LEARNING_RATE = 0.5
# One example in so many is kept from learning, and says how good the classifier is.
HELD_OUT = 10
# Of a long text the beginning is judged.
MAX_WORDS = 1000
MIN_EXAMPLES = 20


@dataclass(frozen=True)
class Labelled:
    """A text, and whether it is one to learn from.

    Attributes:
        text: of a document.
        good: the label.
    """

    text: str
    good: bool


@dataclass(frozen=True)
class Learnt:
    """How well a classifier does on examples that it did not learn from.

    Attributes:
        examples: of which it learnt.
        held_out: on which it was measured.
        accuracy: share of those that are on the right side of one half.
        auc: how probable it is that a good one has a higher score than a bad one.
    """

    examples: int
    held_out: int
    accuracy: float
    auc: float


def read_labelled(path: Path) -> Iterator[Labelled]:
    """Reads lines of JSON with a `text` and a `good` that is true or false.

    Raises:
        DataError: a line is something else.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file; name one with labelled texts, a line of JSON each")
    # Bytes, of which each line is decoded by itself: an error knows its line.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                raw = json.loads(line)
                text, good = raw["text"], raw["good"]
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise DataError(f"{path}, line {number} lacks text or good: {error!r}") from error
            if not isinstance(text, str) or not isinstance(good, bool):
                raise DataError(f"{path}, line {number}: text must be a string and good true or false")
            yield Labelled(text, good)


def learn_quality(examples: Sequence[Labelled], out: Path) -> Learnt:
    """Learns a classifier and writes its weights. The same examples give the same bytes.

    Args:
        examples: both kinds, in any order; equal texts should not stand on both sides.
        out: safetensors file to write.

    Raises:
        DataError: there are too few examples of one kind.
    """
    held = [example for example in examples if _bucket(example.text) == 0]
    learnt = [example for example in examples if _bucket(example.text) != 0]
    for name, part in (("learn from", learnt), ("measure with", held)):
        num_good = sum(example.good for example in part)
        least = MIN_EXAMPLES if part is learnt else 1
        if min(num_good, len(part) - num_good) < least:
            raise DataError(
                f"of {len(part)} examples to {name}, {num_good} are good; at least {least} of each kind are needed"
            )
    weights, bias = _fit(learnt)
    out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"weights": weights, "bias": np.array([bias], dtype=np.float32)}
    save_file(tensors, out, metadata={"format": FORMAT})
    scores = np.array([_score(_features(example.text), weights, bias) for example in held])
    return _measured(scores, np.array([example.good for example in held]), len(learnt))


def quality(path: Path, min_probability: float = 0.5) -> Filter:
    """Leaves out texts that a classifier takes for bad ones.

    Args:
        path: what `learn_quality` wrote.
        min_probability: of being good, 0 to 1.

    Raises:
        CheckpointError: the file is none of these.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            known = (file.metadata() or {}).get("format") == FORMAT
            weights = file.get_tensor("weights") if known else np.empty(0)
            bias = float(file.get_tensor("bias")[0]) if known else 0.0
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a quality classifier: {error}") from error
    if weights.shape != (FEATURES,):
        raise CheckpointError(
            f"{path} is no quality classifier of {FEATURES} features; learn it with phi4 learn-quality"
        )

    def reason(document: Document) -> str | None:
        score = _score(_features(document.text), weights, bias)
        return None if score >= min_probability else "low quality"

    return Filter("quality classifier", reason, (path,))


def _features(text: str) -> np.ndarray:
    """Places of a text's words and pairs of words among the weights, each once: int64, [features of the text]."""
    words = words_of(text)[:MAX_WORDS]
    terms = [*words, *(f"{one} {two}" for one, two in pairwise(words))]
    places = {xxhash.xxh64_intdigest(term.encode(errors="replace")) % FEATURES for term in terms}
    return np.array(sorted(places), dtype=np.int64)


def _score(places: np.ndarray, weights: np.ndarray, bias: float) -> float:
    total = bias + float(weights[places].sum()) / math.sqrt(max(len(places), 1))
    return 1 / (1 + math.exp(-max(min(total, 50.0), -50.0)))


def _fit(examples: Sequence[Labelled]) -> tuple[np.ndarray, float]:
    """Stochastic gradient descent, example by example; both kinds weigh the same in all."""
    weights, bias = np.zeros(FEATURES, dtype=np.float32), 0.0
    num_good = sum(example.good for example in examples)
    weight_of = {True: len(examples) / (2 * num_good), False: len(examples) / (2 * (len(examples) - num_good))}
    places = [_features(example.text) for example in examples]
    generator = np.random.Generator(np.random.Philox(0))
    num_steps = EPOCHS * len(examples)
    for epoch in range(EPOCHS):
        for step, number in enumerate(generator.permutation(len(examples)), start=epoch * len(examples)):
            here, good = places[number], examples[number].good
            slope = (good - _score(here, weights, bias)) * weight_of[good] * LEARNING_RATE * (1 - step / num_steps)
            # A text of no words moves the bias alone.
            weights[here] += slope / math.sqrt(max(len(here), 1))
            bias += 0.1 * slope
    return weights, bias


def _measured(scores: np.ndarray, good: np.ndarray, num_learnt: int) -> Learnt:
    bad = np.sort(scores[~good])
    # Of a good one's equals among the bad, half count as lower.
    lower = np.searchsorted(bad, scores[good], "left") + np.searchsorted(bad, scores[good], "right")
    accuracy = float(((scores >= 0.5) == good).mean())
    return Learnt(num_learnt, len(scores), accuracy, float(lower.mean() / 2 / len(bad)))


def _bucket(text: str) -> int:
    return int(xxhash.xxh64_intdigest(text.encode(errors="replace")) % HELD_OUT)
