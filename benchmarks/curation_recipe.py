"""Curations of the raw files that benchmarks/curation.py and benchmarks/curation_throughput.py make."""

from pathlib import Path

from phi4.data.curate import text
from phi4.data.curate.curation import Collection, Curation, ExactDuplicates, NearDuplicates
from phi4.data.curate.decontaminate import decontaminate
from phi4.data.curate.readers import JsonLines

# spaCy's words hold punctuation, of which a dictionary is full: with 0.8 nine entries in ten would go.
GOPHER_RULES = {"min_doc_words": 20, "max_non_alpha_words_ratio": 0.6}
MIN_CONFIDENCE = 0.3


def usual() -> Curation:
    """The steps' own numbers: English with 0.65 confidence, MinHash with 14 buckets of 8 hashes."""
    return _curation(0.65, NearDuplicates())


def wide() -> Curation:
    """English with 0.3 confidence, and MinHash that looks further: 20 buckets of 5 hashes."""
    return _curation(MIN_CONFIDENCE, NearDuplicates(buckets=20, hashes=5))


def throughput() -> Curation:
    """Text without test sets, as plain datatrove can clean it too."""
    return Curation(
        (Collection("made", "*.jsonl", JsonLines(), licence="GFDL-1.3"),),
        (
            text.repair(),
            text.language("en", MIN_CONFIDENCE),
            text.gopher_repetition(),
            text.gopher_quality(**GOPHER_RULES),
            ExactDuplicates(),
            NearDuplicates(),
            text.mask_private(),
        ),
    )


def _curation(min_confidence: float, near: NearDuplicates) -> Curation:
    return Curation(
        (Collection("planted", "*.jsonl", JsonLines(), licence="GFDL-1.3"),),
        (
            text.repair(),
            text.language("en", min_confidence),
            text.gopher_quality(**GOPHER_RULES),
            decontaminate({"glosses": Path("evaluation.jsonl")}),
            ExactDuplicates(),
            near,
            text.mask_private(),
        ),
    )
