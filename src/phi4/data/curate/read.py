"""What readers hand on, and how much of it at most."""

from dataclasses import dataclass
from typing import TypeAlias

from datatrove.data import Document

# A longer line, file, row or page is left out unread: nobody learns from it, and it would have to fit into memory.
MAX_BYTES = 16 * 2**20
# A file that is longer is cut into parts of about this length.
PART_BYTES = 32 * 2**20
# Of what is refused, so much is kept to be shown.
SAMPLE_BYTES = 200


@dataclass(frozen=True)
class FilePart:
    """A part of a file.

    Attributes:
        start: first byte, or row group of a Parquet file.
        end: behind the last one.
    """

    start: int
    end: int


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
