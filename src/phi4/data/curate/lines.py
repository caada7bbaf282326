"""Lines, paragraphs and whole files as documents, and where long files can be cut between them."""

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, cast

from charset_normalizer import from_bytes
from datatrove.data import Document

from phi4.data.curate.read import MAX_BYTES, PART_BYTES, SAMPLE_BYTES, FilePart, Read, Refused

# Lines of any length are skipped in pieces of this length.
PIECE_BYTES = 2**20


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


def line_parts(path: Path) -> Sequence[FilePart]:
    """Cuts a long file at ends of lines."""
    return _parts(path, _end_of_line)


def paragraph_parts(path: Path) -> Sequence[FilePart]:
    """Cuts a long file behind empty lines."""
    return _parts(path, _end_of_paragraph)


def _parts(path: Path, next_end: Callable[[IO[bytes]], int]) -> Sequence[FilePart]:
    size = path.stat().st_size
    if path.suffix == ".gz" or size <= PART_BYTES:
        return ()
    ends = [0]
    try:
        with path.open("rb") as file:
            while ends[-1] + PART_BYTES < size:
                # One back: where a line ends exactly there, so does the part.
                file.seek(ends[-1] + PART_BYTES - 1)
                ends.append(next_end(file))
    except OSError:
        # Whoever reads the file as a whole says so.
        return ()
    return [FilePart(start, end) for start, end in pairwise([*ends, size]) if start < end]


def _end_of_line(file: IO[bytes]) -> int:
    """Reads on behind the next end of a line."""
    while (piece := file.readline(PIECE_BYTES)) and not piece.endswith(b"\n"):
        pass
    return file.tell()


def _end_of_paragraph(file: IO[bytes]) -> int:
    """Reads on behind the next empty line."""
    _end_of_line(file)
    begins = True
    while piece := file.readline(PIECE_BYTES):
        ends = piece.endswith(b"\n")
        if begins and ends and not piece.strip():
            break
        begins = ends
    return file.tell()


def lines(path: Path, part: FilePart | None = None) -> Iterator[Read]:
    """The lines of a file as documents named by their numbers; those of a part by the byte that they begin at."""
    number, position = 0, part.start if part else 0
    try:
        with open_raw(path) as file:
            file.seek(position)
            while (part is None or position < part.end) and (head := file.readline(MAX_BYTES + 1)):
                number += 1
                place = f"@{position}" if part else str(number)
                position += len(head)
                if len(head) > MAX_BYTES:
                    skipped = _skip_line(file, head)
                    position += skipped
                    size = len(head) + skipped
                    yield Refused(place, "a line longer than 16 MiB", f"{size} bytes: {head[:SAMPLE_BYTES]!r}")
                elif decoded := decode(head.rstrip(b"\r\n")):
                    yield Document(decoded[0], place, metadata=encoding_note(decoded[1]))
                else:
                    yield Refused(place, "bytes that are no text", repr(head[:SAMPLE_BYTES]))
    except (EOFError, OSError, zlib.error) as error:
        place = f"@{position}" if part else str(number + 1)
        yield _unreadable(path, place, error)
        return
    if not number:
        yield Refused("0", "an empty file")


def _unreadable(path: Path, place: str, error: Exception) -> Refused:
    return Refused(place, "broken archive" if path.suffix == ".gz" else "cannot be read", str(error))


def _skip_line(file: IO[bytes], head: bytes) -> int:
    """Skips the rest of a line, and says how long that was."""
    size, piece = 0, head
    while not piece.endswith(b"\n") and (piece := file.readline(PIECE_BYTES)):
        size += len(piece)
    return size


def whole_file(path: Path) -> Read:
    """A file as one document."""
    try:
        with open_raw(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        return _unreadable(path, "1", error)
    if not content:
        return Refused("0", "an empty file")
    if len(content) > MAX_BYTES:
        return Refused("1", "a file longer than 16 MiB", repr(content[:SAMPLE_BYTES]))
    decoded = decode(content)
    if decoded is None:
        return Refused("1", "bytes that are no text", repr(content[:SAMPLE_BYTES]))
    return Document(decoded[0], "1", metadata=encoding_note(decoded[1]))


def paragraphs(lines: Iterator[Read]) -> Iterator[Read]:
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


def open_raw(path: Path) -> IO[bytes]:
    """Opens a file, unpacked if it is packed."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def encoding_note(name: str) -> dict[str, str]:
    """What a document's metadata say of its encoding."""
    return {} if name == "utf-8" else {"encoding": name}
