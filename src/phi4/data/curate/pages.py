"""Pages of web archives as documents."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document

from phi4.data.curate.extraction import ExtractionError, Extractor
from phi4.data.curate.lines import decode, encoding_note, open_raw
from phi4.data.curate.read import MAX_BYTES, Read, Refused


def pages(path: Path, extractor: Extractor) -> Iterator[Read]:
    """Yields a document for each page of an archive."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    number = 0
    try:
        with open_raw(path) as file:
            for record in ArchiveIterator(_Unpacked(file)):
                if record.rec_type in ("response", "conversion"):
                    number += 1
                    yield _page(record, str(number), extractor)
        if not number:
            yield Refused("0", "an archive without pages")
    except (ArchiveLoadFailed, EOFError, OSError, ValueError, zlib.error) as error:
        yield Refused("end", "broken archive", str(error))


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


def _page(record: Any, place: str, extractor: Extractor) -> Read:
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
        try:
            text = extractor.text(decoded[0])
        except ExtractionError as error:
            return Refused(place, str(error), address)
    else:
        return Refused(place, "neither HTML nor plain text", f"{kind} {address}")
    if not text.strip():
        return Refused(place, "a page without text", address)
    return Document(text, place, metadata={"source": address, **encoding_note(decoded[1])})
