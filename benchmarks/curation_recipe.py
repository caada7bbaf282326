"""Curations of the raw files that benchmarks/curation.py plants things in."""

from pathlib import Path

from phi4.data.curate import text
from phi4.data.curate.curation import Collection, Curation, ExactDuplicates, NearDuplicates
from phi4.data.curate.decontaminate import decontaminate
from phi4.data.curate.readers import JsonLines


def usual() -> Curation:
    """MinHash with datatrove's numbers: 14 buckets of 8 hashes."""
    return _curation(NearDuplicates())


def wide() -> Curation:
    """MinHash that looks further: 20 buckets of 5 hashes."""
    return _curation(NearDuplicates(buckets=20, hashes=5))


def _curation(near: NearDuplicates) -> Curation:
    return Curation(
        (Collection("planted", "*.jsonl", JsonLines(), licence="GFDL-1.3"),),
        (
            text.repair(),
            text.language("en"),
            text.gopher_quality(min_doc_words=20),
            decontaminate({"glosses": Path("evaluation.jsonl")}),
            ExactDuplicates(),
            near,
            text.mask_private(),
        ),
    )
