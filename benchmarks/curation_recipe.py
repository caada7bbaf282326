"""Curations of the raw files that benchmarks/curation.py plants things in."""

from pathlib import Path

from phi4.data.curate import text
from phi4.data.curate.curation import Collection, Curation, ExactDuplicates, NearDuplicates
from phi4.data.curate.decontaminate import decontaminate
from phi4.data.curate.readers import JsonLines


def usual() -> Curation:
    """The steps' own numbers: English with 0.65 confidence, MinHash with 14 buckets of 8 hashes."""
    return _curation(0.65, NearDuplicates())


def wide() -> Curation:
    """English with 0.3 confidence, and MinHash that looks further: 20 buckets of 5 hashes."""
    return _curation(0.3, NearDuplicates(buckets=20, hashes=5))


def _curation(min_confidence: float, near: NearDuplicates) -> Curation:
    return Curation(
        (Collection("planted", "*.jsonl", JsonLines(), licence="GFDL-1.3"),),
        (
            text.repair(),
            text.language("en", min_confidence),
            # spaCy's words hold punctuation, of which a dictionary is full: with 0.8 nine entries in ten would go.
            text.gopher_quality(min_doc_words=20, max_non_alpha_words_ratio=0.6),
            decontaminate({"glosses": Path("evaluation.jsonl")}),
            ExactDuplicates(),
            near,
            text.mask_private(),
        ),
    )
