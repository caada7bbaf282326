"""English text: from JSON lines, Parquet and web archives to one data set."""

from pathlib import Path

from phi4.data.curate import text
from phi4.data.curate.curation import Collection, Curation, ExactDuplicates, NearDuplicates
from phi4.data.curate.decontaminate import decontaminate
from phi4.data.curate.quality import quality
from phi4.data.curate.readers import JsonLines, Parquet, Warc


def english() -> Curation:
    """Any folder of JSON lines whose rows have a text and a licence."""
    return Curation(
        collections=(Collection("text", "**/*.jsonl", JsonLines()),),
        steps=(
            text.repair(),
            text.language("en"),
            text.gopher_repetition(),
            text.gopher_quality(),
            ExactDuplicates(),
            NearDuplicates(),
            text.mask_private(),
        ),
    )


def mixture() -> Curation:
    """Web pages, books and code questions, two to one to one, at most a billion tokens.

    Reads `evaluation/*.jsonl`, the sets to be measured on, and `quality.safetensors`, which phi4 learn-quality wrote,
    in the folder that the command is run in.
    """
    return Curation(
        collections=(
            Collection("web", "web/**/*.warc.gz", Warc(), licence="Common Crawl terms of use"),
            Collection("books", "books/**/*.parquet", Parquet(), licence="public domain"),
            Collection("questions", "questions/**/*.jsonl.gz", JsonLines(text="body"), licence="CC-BY-SA-4.0"),
        ),
        steps=(
            text.repair(),
            text.language("en"),
            text.gopher_repetition(),
            text.gopher_quality(),
            text.c4_quality(filter_no_terminal_punct=False, filter_curly_bracket=False),
            text.fineweb_quality(),
            quality(Path("quality.safetensors")),
            ExactDuplicates(),
            NearDuplicates(),
            decontaminate({path.stem: path for path in sorted(Path("evaluation").glob("*.jsonl"))}),
            text.mask_private(),
        ),
        mixture={"web": 2, "books": 1, "questions": 1},
        budget=1_000_000_000,
    )
