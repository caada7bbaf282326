"""Word and character error rates (jiwer), BLEU and chrF (sacrebleu); the libraries come with `phi4[eval]`."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from phi4.errors import InputError
from phi4.eval.task import Item, Metric, Reply
from phi4.score import split_words


def import_library(name: str) -> Any:
    """Imports a library of the extra.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"this needs {name}, which is not installed: pip install 'phi4[eval]'") from error


def _split(item: Item) -> Callable[[str], list[str]]:
    """Words without punctuation; where the right answer is nothing but signs, such as an emoji, those are compared."""
    return split_words if split_words(item.references[0]) else str.split


def _word_errors(item: Item, reply: Reply) -> Sequence[float]:
    expected, given = (" ".join(_split(item)(text)) for text in (item.references[0], reply.texts[0]))
    if not expected:
        return (float(len(given.split())), 0.0)
    alignment = import_library("jiwer").process_words(expected, given)
    errors = alignment.substitutions + alignment.deletions + alignment.insertions
    return (float(errors), float(alignment.hits + alignment.substitutions + alignment.deletions))


def _character_errors(item: Item, reply: Reply, between: str = " ") -> Sequence[float]:
    expected, given = (between.join(_split(item)(text)) for text in (item.references[0], reply.texts[0]))
    if not expected:
        return (float(len(given)), 0.0)
    alignment = import_library("jiwer").process_characters(expected, given)
    errors = alignment.substitutions + alignment.deletions + alignment.insertions
    return (float(errors), float(alignment.hits + alignment.substitutions + alignment.deletions))


@cache
def _bleu(tokenize: str) -> Any:
    return import_library("sacrebleu").BLEU(tokenize=tokenize, effective_order=True)


@cache
def _chrf() -> Any:
    return import_library("sacrebleu").CHRF()


def bleu(tokenize: str = "13a") -> Metric:
    """BLEU of the corpus, with sacrebleu's smoothing.

    Args:
        tokenize: sacrebleu's tokenizer: "13a", or "zh", "ja-mecab", "char" for languages without spaces.
    """

    def statistics(item: Item, reply: Reply) -> Sequence[float]:
        score = _bleu(tokenize).sentence_score(reply.texts[0], list(item.references))
        return (score.sys_len, score.ref_len, *score.counts, *score.totals)

    return Metric("BLEU", statistics, total="bleu", check=partial(import_library, "sacrebleu"))


def bleu_of(sums: npt.NDArray[np.float64]) -> float:
    """BLEU from 0 to 100 of summed lengths, matches and n-grams."""
    counts = [int(value) for value in sums]
    half = (len(counts) + 2) // 2
    score = import_library("sacrebleu").BLEU.compute_bleu(
        correct=counts[2:half], total=counts[half:], sys_len=counts[0], ref_len=counts[1], smooth_method="exp"
    )
    return float(score.score)


def _chrf_statistics(item: Item, reply: Reply) -> Sequence[float]:
    # sacrebleu has no public way to a sentence's statistics; the test compares the sum with its corpus score.
    (statistics,) = _chrf()._extract_corpus_statistics([reply.texts[0]], [[right] for right in item.references])
    return tuple(float(value) for value in statistics)


def chrf_of(sums: npt.NDArray[np.float64]) -> float:
    """chrF from 0 to 100 of summed n-gram counts."""
    return float(_chrf()._compute_score_from_stats([int(value) for value in sums]).score)


WER = Metric("WER", _word_errors, higher_is_better=False, check=partial(import_library, "jiwer"))
CER = Metric("CER", _character_errors, higher_is_better=False, check=partial(import_library, "jiwer"))
# Of languages that are written without spaces; some references have them all the same, such as those of FLEURS.
UNSPACED_CER = replace(CER, statistics=partial(_character_errors, between=""))
CHRF = Metric("chrF", _chrf_statistics, total="chrf", check=partial(import_library, "sacrebleu"))
