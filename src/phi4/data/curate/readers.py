"""Readers: from one raw file to documents, in bounded memory; what cannot be read is handed on with the reason."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeAlias, cast

import pyarrow as pa
import pyarrow.parquet
from charset_normalizer import from_bytes
from datatrove.data import Document

from phi4.data.curate.documents import record_document
from phi4.data.record import read_record
from phi4.errors import DataError

# A longer line, file, row or page is left out unread: nobody learns from it, and it would have to fit into memory.
MAX_BYTES = 16 * 2**20
PARQUET_ROWS = 64
# Of what is refused, so much is kept to be shown.
SAMPLE_BYTES = 200


@dataclass(frozen=True)
class Refused:
    """What could not become a document.

    Attributes:
        place: in the file: a number behind it.
        reason: in a few words, without values, so that equal ones can be counted.
        sample: how it begins, or what the error said.
    """

    place: str
    reason: str
    sample: str = ""


Read: TypeAlias = Document | Refused


class Reader(Protocol):
    """Cuts one file into documents, whose ids are their places in the file."""

    def read(self, path: Path) -> Iterator[Read]:
        """Yields documents and what had to be refused, in the order of the file."""
        ...


@dataclass(frozen=True)
class JsonLines:
    """One JSON object on each line; `.gz` is unpacked on the way.

    Attributes:
        text: field with the text.
        licence: field with the licence, where there is one.
        source: field that says where the text was taken from, where there is one.
    """

    text: str = "text"
    licence: str = "licence"
    source: str = "source"

    def read(self, path: Path) -> Iterator[Read]:
        """Yields a document for each line."""
        for line in _lines(path):
            yield line if isinstance(line, Refused) else self._document(line)

    def _document(self, line: Document) -> Read:
        try:
            row = json.loads(line.text)
        except (ValueError, RecursionError) as error:
            return Refused(line.id, "not valid JSON", f"{error}: {line.text[:SAMPLE_BYTES]}")
        return _row_document(line.id, row, self.text, self.licence, self.source, line.metadata)


@dataclass(frozen=True)
class Parquet:
    """One document in each row; the fields are those of `JsonLines`."""

    text: str = "text"
    licence: str = "licence"
    source: str = "source"

    def read(self, path: Path) -> Iterator[Read]:
        """Yields a document for each row."""
        number = 0
        try:
            with pa.parquet.ParquetFile(path) as file:
                names = [name for name in (self.text, self.licence, self.source) if name in file.schema_arrow.names]
                for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=names):
                    for row in batch.to_pylist():
                        number += 1
                        yield _row_document(str(number), row, self.text, self.licence, self.source, {})
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            yield Refused(str(number + 1), "broken Parquet file", str(error))


@dataclass(frozen=True)
class PlainText:
    """Text as it is; `.gz` is unpacked on the way.

    Attributes:
        cut: what becomes a document: a whole file, each paragraph (empty lines part them) or each line.
    """

    cut: Literal["file", "paragraph", "line"] = "file"

    def read(self, path: Path) -> Iterator[Read]:
        """Yields a document for each piece that is not empty."""
        if self.cut == "file":
            yield _whole(path)
            return
        for line in _lines(path) if self.cut == "line" else _paragraphs(_lines(path)):
            if isinstance(line, Refused) or line.text.strip():
                yield line


@dataclass(frozen=True)
class Warc:
    """Web archives, packed or not: the main text of HTML pages, and plain text as it is (WET files)."""

    def read(self, path: Path) -> Iterator[Read]:
        """Yields a document for each page, whose source is its address."""
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed

        number = 0
        try:
            with _open(path) as file:
                for record in ArchiveIterator(_Unpacked(file)):
                    if record.rec_type in ("response", "conversion"):
                        number += 1
                        yield _page(record, str(number))
        except (ArchiveLoadFailed, EOFError, OSError, ValueError, zlib.error) as error:
            yield Refused("end", "broken archive", str(error))


@dataclass(frozen=True)
class Records:
    """The project's own records, one on each line, with their media beside the file (docs/data.md)."""

    def read(self, path: Path) -> Iterator[Read]:
        """Yields a document for each record."""
        for line in _lines(path):
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


def decode(content: bytes) -> tuple[str, str] | None:
    """Reads bytes as UTF-8, or else in the encoding that their letters speak for.

    Returns:
        The text and the encoding, or None for what is no text.
    """
    try:
        return content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        best = None if b"\x00" in content else from_bytes(content).best()
    return None if best is None else (str(best), best.encoding)


def _lines(path: Path) -> Iterator[Read]:
    """The lines of a file as documents named by their numbers."""
    number = 0
    try:
        with _open(path) as file:
            while head := file.readline(MAX_BYTES + 1):
                number += 1
                if len(head) > MAX_BYTES:
                    yield Refused(str(number), "a line longer than 16 MiB", _too_long(file, head))
                elif decoded := decode(head.rstrip(b"\r\n")):
                    yield Document(decoded[0], str(number), metadata=_encoding(decoded[1]))
                else:
                    yield Refused(str(number), "bytes that are no text", repr(head[:SAMPLE_BYTES]))
    except (EOFError, OSError, zlib.error) as error:
        yield Refused(str(number + 1), "broken archive" if path.suffix == ".gz" else "cannot be read", str(error))
        return
    if not number:
        yield Refused("0", "an empty file")


def _too_long(file: IO[bytes], head: bytes) -> str:
    """Skips the rest of a line, and says how long it was."""
    size, piece = len(head), head
    while not piece.endswith(b"\n") and (piece := file.readline(2**20)):
        size += len(piece)
    return f"{size} bytes: {head[:SAMPLE_BYTES]!r}"


def _whole(path: Path) -> Read:
    try:
        with _open(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        return Refused("1", "broken archive" if path.suffix == ".gz" else "cannot be read", str(error))
    if not content:
        return Refused("0", "an empty file")
    if len(content) > MAX_BYTES:
        return Refused("1", "a file longer than 16 MiB", repr(content[:SAMPLE_BYTES]))
    decoded = decode(content)
    if decoded is None:
        return Refused("1", "bytes that are no text", repr(content[:SAMPLE_BYTES]))
    return Document(decoded[0], "1", metadata=_encoding(decoded[1]))


class _Unpacked:
    """A file for warcio, which takes the end of a broken archive for the end of the file."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> Any:
        """Reads at most so many bytes."""
        try:
            # Not more than is there: what stands before the break is good.
            return self._file.read1(size)
        except (EOFError, zlib.error) as error:
            raise OSError(str(error)) from error


def _page(record: Any, place: str) -> Read:
    import trafilatura

    content = record.content_stream().read(MAX_BYTES + 1)
    address = record.rec_headers.get_header("WARC-Target-URI") or ""
    if len(content) > MAX_BYTES:
        return Refused(place, "a page longer than 16 MiB", address)
    if not record.raw_stream.read(1) and record.raw_stream.limit:
        return Refused(place, "broken archive", f"{address} is cut short")
    decoded = decode(content)
    if decoded is None:
        return Refused(place, "bytes that are no text", address)
    headers = record.http_headers or record.rec_headers
    kind = (headers.get_header("Content-Type") or "").partition(";")[0].strip().lower()
    if record.rec_type == "conversion" or kind == "text/plain":
        text = decoded[0]
    elif kind in ("text/html", "application/xhtml+xml"):
        text = trafilatura.extract(decoded[0], favor_precision=True, include_comments=False) or ""
    else:
        return Refused(place, "neither HTML nor plain text", f"{kind} {address}")
    if not text.strip():
        return Refused(place, "a page without text", address)
    return Document(text, place, metadata={"source": address, **_encoding(decoded[1])})


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _row_document(place: str, row: Any, text: str, licence: str, source: str, metadata: dict[str, Any]) -> Read:
    if not isinstance(row, dict) or not isinstance(row.get(text), str):
        return Refused(place, f"no text in the field {text}", repr(row)[:SAMPLE_BYTES])
    if len(row[text]) > MAX_BYTES:
        return Refused(place, "a text longer than 16 MiB", row[text][:SAMPLE_BYTES])
    own = {"licence": row.get(licence), "source": row.get(source)}
    told = {name: value for name, value in own.items() if isinstance(value, str) and value}
    return Document(row[text], place, metadata={**metadata, **told})


def _paragraphs(lines: Iterator[Read]) -> Iterator[Read]:
    """Joins lines between empty ones; a paragraph that is too long is refused, and its rest skipped."""
    paragraph: list[Document] = []
    size = 0
    for line in lines:
        if isinstance(line, Refused):
            yield line
        elif line.text.strip():
            size += len(line.text) + 1
            if size <= MAX_BYTES:
                paragraph.append(line)
        elif paragraph:
            yield _joined(paragraph, size)
            paragraph, size = [], 0
    if paragraph:
        yield _joined(paragraph, size)


def _joined(lines: list[Document], size: int) -> Read:
    if size > MAX_BYTES:
        return Refused(lines[0].id, "a paragraph longer than 16 MiB", lines[0].text[:SAMPLE_BYTES])
    encodings = {key: value for line in lines for key, value in line.metadata.items()}
    return Document("\n".join(line.text for line in lines), lines[0].id, metadata=encodings)


def _lacks_licence(line: str) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and not row.get("licence")


def _encoding(name: str) -> dict[str, str]:
    return {} if name == "utf-8" else {"encoding": name}
