"""Readers: from one raw file to documents, in bounded memory; what cannot be read is handed on with the reason."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet
from datatrove.data import Document

from phi4.data.curate.documents import record_document
from phi4.data.curate.extraction import Extractor
from phi4.data.curate.lines import line_parts, lines, paragraph_parts, paragraphs, whole_file
from phi4.data.curate.pages import pages
from phi4.data.curate.read import MAX_BYTES, PART_BYTES, SAMPLE_BYTES, FilePart, Read, Refused
from phi4.data.record import read_record
from phi4.errors import DataError

# Of a Parquet file, so many rows are in memory at most, and so much of what is packed.
PARQUET_ROWS = 64
PARQUET_BUFFER_BYTES = 2**20


class Reader(Protocol):
    """Cuts one file into documents, whose ids are their places in the file."""

    def parts(self, path: Path) -> Sequence[FilePart]:
        """Where a large file is cut, so that several tasks can read it; nothing where it is read as a whole.

        The parts must follow from the file alone.
        """
        return ()

    def read(self, path: Path, part: FilePart | None = None) -> Iterator[Read]:
        """Yields documents and what had to be refused, in the order of the file or of a part of it."""
        ...


@dataclass(frozen=True)
class JsonLines(Reader):
    """One JSON object on each line; `.gz` is unpacked on the way.

    Attributes:
        text: field with the text.
        licence: field with the licence, where there is one.
        source: field that says where the text was taken from, where there is one.
    """

    text: str = "text"
    licence: str = "licence"
    source: str = "source"

    def parts(self, path: Path) -> Sequence[FilePart]:
        """Cuts at the ends of lines."""
        return line_parts(path)

    def read(self, path: Path, part: FilePart | None = None) -> Iterator[Read]:
        """Yields a document for each line."""
        for line in lines(path, part):
            yield line if isinstance(line, Refused) else self._document(line)

    def _document(self, line: Document) -> Read:
        try:
            row = json.loads(line.text)
        except (ValueError, RecursionError) as error:
            return Refused(line.id, "not valid JSON", f"{error}: {line.text[:SAMPLE_BYTES]}")
        return _row_document(line.id, row, self.text, self.licence, self.source, line.metadata)


@dataclass(frozen=True)
class Parquet(Reader):
    """One document in each row; the fields are those of `JsonLines`."""

    text: str = "text"
    licence: str = "licence"
    source: str = "source"

    def parts(self, path: Path) -> Sequence[FilePart]:
        """Cuts between row groups."""
        try:
            metadata = pa.parquet.read_metadata(path)
        except (pa.ArrowException, OSError):
            return ()
        ends, size = [], 0
        for group in range(metadata.num_row_groups):
            size += metadata.row_group(group).total_byte_size
            if size >= PART_BYTES or group == metadata.num_row_groups - 1:
                ends.append(group + 1)
                size = 0
        return [FilePart(start, end) for start, end in pairwise([0, *ends])] if len(ends) > 1 else ()

    def read(self, path: Path, part: FilePart | None = None) -> Iterator[Read]:
        """Yields a document for each row, by its number in the file."""
        number = 0
        try:
            with pa.parquet.ParquetFile(path, buffer_size=PARQUET_BUFFER_BYTES) as file:
                groups = range(part.start, part.end) if part else range(file.num_row_groups)
                number = sum(file.metadata.row_group(group).num_rows for group in range(groups.start))
                names = [name for name in (self.text, self.licence, self.source) if name in file.schema_arrow.names]
                for batch in _batches(file, groups, names):
                    for row in batch.to_pylist():
                        number += 1
                        yield _row_document(str(number), row, self.text, self.licence, self.source, {})
            if not number:
                yield Refused("0", "an empty file")
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            yield Refused(str(number + 1), "broken Parquet file", str(error))


@dataclass(frozen=True)
class PlainText(Reader):
    """Text as it is; `.gz` is unpacked on the way.

    Attributes:
        cut: what becomes a document: a whole file, each paragraph (empty lines part them) or each line.
    """

    cut: Literal["file", "paragraph", "line"] = "file"

    def parts(self, path: Path) -> Sequence[FilePart]:
        """Cuts between documents."""
        if self.cut == "file":
            return ()
        return line_parts(path) if self.cut == "line" else paragraph_parts(path)

    def read(self, path: Path, part: FilePart | None = None) -> Iterator[Read]:
        """Yields a document for each piece that is not empty."""
        if self.cut == "file":
            yield whole_file(path)
            return
        for line in lines(path, part) if self.cut == "line" else paragraphs(lines(path, part)):
            if isinstance(line, Refused) or line.text.strip():
                yield line


@dataclass(frozen=True)
class Warc(Reader):
    """Web archives, packed or not: the main text of HTML pages, and plain text as it is (WET files).

    Attributes:
        max_page_s: a page whose text takes longer is refused. What is refused then depends on the machine, so this
            should be far beyond what real pages take.
    """

    max_page_s: float = 60.0

    def read(self, path: Path, part: FilePart | None = None) -> Iterator[Read]:
        """Yields a document for each page, whose source is its address."""
        with closing(Extractor(self.max_page_s)) as extractor:
            yield from pages(path, extractor)


@dataclass(frozen=True)
class Records(Reader):
    """The project's own records, one on each line, with their media beside the file (docs/data.md)."""

    def read(self, path: Path, part: FilePart | None = None) -> Iterator[Read]:
        """Yields a document for each record."""
        for line in lines(path):
            if isinstance(line, Refused):
                yield line
                continue
            try:
                document = record_document(read_record(line.text.encode(), path, int(line.id)))
            except DataError as error:
                yield Refused(line.id, "no licence" if _lacks_licence(line.text) else "not a record", str(error))
                continue
            if any(not medium.media_bytes for medium in document.media):
                yield Refused(line.id, "a medium of zero bytes", document.id)
            else:
                document.id = f"{line.id}/{document.id}"
                yield document


def _batches(file: pa.parquet.ParquetFile, groups: range, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some rows at a time: fewer where they are long, as far as the mean of their group tells."""
    for group in groups:
        size = file.metadata.row_group(group)
        fitting = size.num_rows * MAX_BYTES // max(size.total_byte_size, 1)
        yield from file.iter_batches(max(1, min(fitting, PARQUET_ROWS)), row_groups=[group], columns=names)


def _row_document(place: str, row: Any, text: str, licence: str, source: str, metadata: dict[str, Any]) -> Read:
    if not isinstance(row, dict) or not isinstance(row.get(text), str):
        return Refused(place, f"no text in the field {text}", repr(row)[:SAMPLE_BYTES])
    if len(row[text]) > MAX_BYTES:
        return Refused(place, "a text longer than 16 MiB", row[text][:SAMPLE_BYTES])
    own = {"licence": row.get(licence), "source": row.get(source)}
    told = {name: value for name, value in own.items() if isinstance(value, str) and value}
    return Document(row[text], place, metadata={**metadata, **told})


def _lacks_licence(line: str) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and not row.get("licence")
