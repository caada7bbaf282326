"""The two arms of benchmarks/curation_gain.py: the mixture as it is, and curated."""

from pathlib import Path

from phi4.data.curate import text
from phi4.data.curate.curation import Collection, Curation, ExactDuplicates, NearDuplicates
from phi4.data.curate.quality import quality
from phi4.data.curate.readers import JsonLines

MIXTURE = (Collection("mixture", "*.jsonl", JsonLines()),)


def raw() -> Curation:
    """Everything."""
    return Curation(MIXTURE, ())


def curated() -> Curation:
    """Published rules, and a classifier learnt from a thousand labelled documents of the mixture."""
    return Curation(
        MIXTURE,
        (
            text.repair(),
            text.language("en", 0.3),
            # spaCy's words hold punctuation, of which a dictionary is full: with 0.8 nine entries in ten would go.
            text.gopher_quality(min_doc_words=20, max_non_alpha_words_ratio=0.6),
            quality(Path("quality.safetensors")),
            ExactDuplicates(),
            NearDuplicates(),
            text.mask_private(),
        ),
    )
