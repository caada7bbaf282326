"""Pictures and sounds beside a file of records: each under the name of its SHA-256, read from nowhere else."""

import hashlib
import re
from pathlib import Path
from typing import Any

from phi4.errors import DataError
from phi4.files import new_file

MEDIA_FOLDER = "media"

# Name endings by how a file begins. RIFF is followed by a length, and holds WAV or WebP.
_SIGNATURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"\xff\xd8\xff"), "jpg"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    (re.compile(rb"BM"), "bmp"),
    (re.compile(rb"II\*\x00|MM\x00\*"), "tiff"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "webp"),
    (re.compile(rb"RIFF.{4}WAVE", re.DOTALL), "wav"),
    (re.compile(rb"fLaC"), "flac"),
    (re.compile(rb"OggS"), "ogg"),
    (re.compile(rb"ID3|\xff[\xe2-\xff]"), "mp3"),
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def store_medium(folder: Path, content: bytes) -> str:
    """Writes a medium into `media/` unless it is there already.

    Args:
        folder: where the file of records is.
        content: of the medium's file.

    Returns:
        The path of the medium, relative to `folder`.
    """
    digest = hashlib.sha256(content).hexdigest()
    reference = f"{MEDIA_FOLDER}/{digest[:2]}/{digest}.{file_ending(content)}"
    path = folder / reference
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as partial:
            partial.write_bytes(content)
    return reference


def load_medium(folder: Path, reference: Any) -> bytes:
    """Reads a medium.

    Args:
        folder: where the file of records is.
        reference: the path of the medium, relative to `folder`.

    Raises:
        DataError: the path is none, leaves the folder or leads to no file, or the file is not the one that was stored.
    """
    if not isinstance(reference, str):
        raise DataError(f"a medium must be the path of a file, not a {type(reference).__name__}")
    try:
        path = (folder / reference).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise DataError(f"the medium {reference!r} lies outside {folder}; media are files in the records' folder")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"the medium {reference!r:.100} cannot be read: {reason}; name a file") from error
    if _SHA256.fullmatch(path.stem) and hashlib.sha256(content).hexdigest() != path.stem:
        raise DataError(f"the medium {reference!r} is damaged: its SHA-256 is no longer its name; write it again")
    return content


def file_ending(content: bytes) -> str:
    """Tells from its first bytes how a picture's or sound's file is to be called; "bin" if they are unknown."""
    return next((ending for signature, ending in _SIGNATURES if signature.match(content)), "bin")
