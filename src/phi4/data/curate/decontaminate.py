"""Decontamination: finds texts that share n-grams of words with the records that a model is to be measured on."""

import csv
import gzip
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import xxhash
from datatrove.data import Document

from phi4.data.curate.curation import Filter
from phi4.data.curate.read import MAX_BYTES
from phi4.errors import ConfigError

# GPT-3's number (appendix C of its report); shorter questions are looked for whole, unless they are shorter than that.
NGRAM = 13
MIN_WORDS = 8

_WORD = re.compile(r"\w+")


def decontaminate(evaluation_sets: Mapping[str, Path], ngram: int = NGRAM, min_words: int = MIN_WORDS) -> Filter:
    """Leaves out documents that share a run of words with an evaluation set; case and punctuation do not matter.

    Args:
        evaluation_sets: files by name: JSON, JSON lines or Parquet, of which all texts are taken, whatever the fields,
            tables (CSV, TSV), of which each cell is one, or plain text, of which each line is; `.gz` is unpacked, but
            for Parquet.
        ngram: words of a run. A text with fewer is looked for as a whole.
        min_words: texts with fewer words are not looked for: they would be found anywhere.

    Raises:
        ConfigError: there is no file, one cannot be read, or holds no text that is long enough.
    """
    if not evaluation_sets:
        raise ConfigError("there is no evaluation set to look for; name files, or leave the decontamination out")
    if not 1 <= min_words <= ngram:
        raise ConfigError(f"min_words is {min_words} and ngram {ngram}; they must be 1 <= min_words <= ngram")
    found: dict[int, dict[int, str]] = {}
    for name, path in evaluation_sets.items():
        num_before = sum(map(len, found.values()))
        for text in _texts(path):
            words = words_of(text)
            size = min(len(words), ngram)
            if size >= min_words:
                runs = found.setdefault(size, {})
                for run in run_hashes(words, size):
                    runs.setdefault(run, name)
        if sum(map(len, found.values())) == num_before:
            raise ConfigError(f"the evaluation set {name!r}, {path}, adds no text of {min_words} words or more")

    def reason(document: Document) -> str | None:
        words = words_of(document.text)
        for size, runs in found.items():
            for run in run_hashes(words, size):
                if run in runs:
                    return f"shares a run of words with {runs[run]}"
        return None

    return Filter("decontamination", reason, tuple(evaluation_sets.values()))


def words_of(text: str) -> list[str]:
    """Words in small letters, compatible characters made equal."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def run_hashes(words: list[str], size: int) -> Iterator[int]:
    """A hash of 64 bits of each run of so many words."""
    for start in range(len(words) - size + 1):
        yield xxhash.xxh64_intdigest(" ".join(words[start : start + size]).encode(errors="replace"))


def _texts(path: Path) -> Iterator[str]:
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    readers = {".jsonl": _of_lines, ".json": _of_json, ".parquet": _of_parquet, ".csv": _of_cells, ".tsv": _of_cells}
    try:
        yield from readers.get(kind, _lines)(path)
    except (OSError, EOFError, ValueError, RecursionError, csv.Error, pyarrow.ArrowException) as error:
        raise ConfigError(f"the evaluation set {path} cannot be read: {error}") from error


def _lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        yield from file


def _of_lines(path: Path) -> Iterator[str]:
    for line in _lines(path):
        if line.strip():
            yield from _strings(json.loads(line))


def _of_json(path: Path) -> Iterator[str]:
    try:
        value = json.loads("".join(_lines(path)))
    except ValueError:  # some data sets call JSON lines .json
        yield from _of_lines(path)
    else:
        yield from _strings(value)


def _of_cells(path: Path) -> Iterator[str]:
    csv.field_size_limit(MAX_BYTES)
    lines = _lines(path)
    table = csv.reader(lines) if ".csv" in path.suffixes else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    for cells in table:
        yield from cells


def _of_parquet(path: Path) -> Iterator[str]:
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from _strings(batch.to_pylist())


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
