"""Reads the rows of a data set from JSON, JSON lines, Parquet, CSV and TSV files, here or on the Hub."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from huggingface_hub import snapshot_download

from phi4.errors import DataError

READABLE = (".json", ".jsonl", ".parquet", ".csv", ".tsv")
# LibriSpeech: a line for each sound beside it, its name and what is said.
TRANSCRIPTS = ".trans.txt"
# Rows of a Parquet file that are in memory together; each may hold a picture.
ROWS_AT_ONCE = 16
# What is read as one: a row of text, which may hold a picture; a file of JSON; a picture or sound.
MAX_ROW_BYTES = 64 * 2**20
MAX_FILE_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class SourceRow:
    """One row of a file, and where it is, so that what is wrong with it can be said.

    Attributes:
        file: where it was read from; media that it names lie in that folder or below.
        number: counted from 1.
        fields: its values.
    """

    file: Path
    number: int
    fields: Mapping[str, Any]

    def error(self, problem: str) -> DataError:
        """What to raise about this row."""
        return DataError(f"{self.file}, row {self.number}: {problem}")

    def value(self, *names: str) -> Any:
        """The value of the first of these fields that is there."""
        for name in names:
            if self.fields.get(name) is not None:
                return self.fields[name]
        raise self.error(f"there is no {' or '.join(names)}; it has {', '.join(map(str, self.fields)) or 'nothing'}")

    def text(self, *names: str) -> str:
        """The text of the first of these fields that is there; a number counts as its digits."""
        value = self.value(*names)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error(f"{' or '.join(names)} must be text, not a {type(value).__name__}")
        return str(value)

    def texts(self, *names: str) -> tuple[str, ...]:
        """The texts of a list that is not empty; one text counts as a list of one."""
        value = self.value(*names)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, Sequence) or not values or not all(isinstance(one, str) for one in values):
            raise self.error(f"{' or '.join(names)} must be a list of texts, not {str(value)[:60]!r}")
        return tuple(values)

    def medium(self, *names: str) -> bytes:
        """The content of a picture or sound: embedded as the Hub does it, or the file of that name."""
        value = self.value(*names)
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            raise self.error(f"{' or '.join(names)} is neither a file's content nor its name")
        return self.read_file(value)

    def read_file(self, *names: str) -> bytes:
        """The content of the first of these files, relative to the row's own file, that is there."""
        folder = self.file.parent.resolve()
        for name in names:
            path = (folder / name).resolve()
            if not path.is_relative_to(folder):
                raise self.error(f"{name} lies outside {folder}; put the media beside the file that names them")
            if path.is_file():
                return _read_whole(path)
        raise self.error(f"there is no file {' or '.join(names)} in {folder}")


def find_files(
    task: str,
    pattern: str,
    repository: str | None,
    path: Path | None,
    beside: str | None = None,
    *,
    fitting_only: bool = False,
) -> list[Path]:
    """The files of a task's rows.

    Args:
        task: its name.
        pattern: of the files with the right split; of several with | between them the first counts that fits a file.
        repository: on the Hub, which is asked if there is no path.
        path: a file, or a folder with files that fit the pattern or one readable file alone.
        beside: pattern of other files that are fetched with them.
        fitting_only: whether a file must fit the pattern even if it is the only one.

    Raises:
        DataError: there are none, or they cannot be fetched.
    """
    if path is None:
        if repository is None:
            raise DataError(f"{task} has no data on the Hub; name a folder that holds {task} with --data")
        path = _fetch(task, repository, pattern if beside is None else f"{pattern}|{beside}")
    if path.is_file() and not fitting_only:
        return [path]
    if path.is_file():
        raise DataError(f"{task}: {path} is one file; the ones with {pattern!r} are looked for in a folder")
    if not path.is_dir():
        raise DataError(f"{task}: there is no {path}; put the data there, or leave --data out to take it from the Hub")
    found = sorted(file for file in path.rglob("*") if file.is_file() and is_readable(file))
    names = [file.relative_to(path).as_posix() for file in found]
    # A folder filled by hand has the names of the split, but not always the folders of the Hub.
    fitting = _fitting(found, names, pattern) or _fitting(
        found, [file.name for file in found], _without_folders(pattern)
    )
    if not fitting and (fitting_only or len(found) != 1):
        named = ", ".join(names[:5]) or "no readable file"
        raise DataError(
            f"{task}: no file in {path} fits {pattern!r} (there is {named}); name the right file, or leave it alone"
        )
    return fitting or found


def is_readable(file: Path) -> bool:
    """Whether `read_rows` takes files of this name."""
    return file.suffix in READABLE or file.name.endswith(TRANSCRIPTS)


def _fitting(files: Sequence[Path], names: Sequence[str], pattern: str) -> list[Path]:
    """The files whose names fit the first of the patterns that fits any."""
    for one in pattern.split("|"):
        if fitting := [file for file, name in zip(files, names, strict=True) if fnmatch(name, one)]:
            return fitting
    return []


def _without_folders(pattern: str) -> str:
    """The patterns of the names alone; one that takes any name is left out."""
    return "|".join(name for one in pattern.split("|") if (name := one.rpartition("/")[2]).strip("*"))


def _fetch(task: str, repository: str, pattern: str) -> Path:
    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=pattern.split("|")))
    except Exception as error:  # the client raises what its transport does
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"{task}: {repository} cannot be fetched from the Hub: {reason}; fetch it by other means and name the "
            "folder that holds it with --data"
        ) from error


def read_rows(file: Path, columns: Sequence[str] = ()) -> Iterator[SourceRow]:
    """Reads a file row by row.

    Args:
        file: JSON (a list, or an object with a list under "data"), JSON lines, Parquet, CSV, TSV or transcripts.
        columns: of a table without a header; empty where the first line names them.

    Raises:
        DataError: the file cannot be read, or a row is not an object.
    """
    if not is_readable(file):
        raise DataError(f"{file} cannot be read; the name of a data file ends with one of {' '.join(READABLE)}")
    readers = {".jsonl": _read_lines, ".json": _read_json, ".parquet": _read_parquet, ".txt": _read_transcripts}
    try:
        rows = readers[file.suffix](file) if file.suffix in readers else _read_table(file, columns)
        for number, fields in enumerate(rows, start=1):
            if not isinstance(fields, Mapping):
                raise DataError(f"{file}, row {number} is a {type(fields).__name__}, not an object with fields")
            yield SourceRow(file, number, fields)
    except (OSError, ValueError, csv.Error, RecursionError, pyarrow.ArrowException) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _read_whole(file: Path) -> bytes:
    if file.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{file} has {file.stat().st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read at once")
    return file.read_bytes()


def _lines(file: Path) -> Iterator[str]:
    """The lines of a file, none of which may take all memory."""
    with file.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                raise DataError(f"{file}, line {number} has more than {MAX_ROW_BYTES:,} bytes; it is no row of a table")
            # A mark of the byte order is only taken from the beginning.
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")


def _read_lines(file: Path) -> Iterator[Any]:
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}, line {number} cannot be read as JSON: {error}") from error


def _read_transcripts(file: Path) -> Iterator[Any]:
    for line in _lines(file):
        name, _, text = line.strip().partition(" ")
        yield {"path": f"{name}.flac", "text": text}


def _read_json(file: Path) -> Iterator[Any]:
    try:
        value = json.loads(_read_whole(file))
    except ValueError:  # some data sets call JSON lines .json
        yield from _read_lines(file)
        return
    values = value.get("data") if isinstance(value, Mapping) and isinstance(value.get("data"), list) else value
    yield from values if isinstance(values, list) else [values]


def _read_parquet(file: Path) -> Iterator[Any]:
    with pyarrow.parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE):
            yield from batch.to_pylist()


def _read_table(file: Path, columns: Sequence[str]) -> Iterator[Any]:
    lines, names = _lines(file), columns or None
    # Python's own limit is 128 KiB; a row has one already.
    csv.field_size_limit(MAX_ROW_BYTES)
    if file.suffix == ".csv":
        yield from csv.DictReader(lines, names)
    else:
        yield from csv.DictReader(lines, names, delimiter="\t", quoting=csv.QUOTE_NONE)
