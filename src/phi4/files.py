"""Files and directories that appear complete or not at all, folders for results, and digests of files."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phi4.errors import CheckpointError, InputError, Phi4Error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, unless it is there.

    Raises:
        InputError: something else is there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{path} cannot be a folder: there is a file of that name; name another") from error


@contextmanager
def new_file(destination: Path) -> Iterator[Path]:
    """Gives a hidden name to write to; the file takes its final name only when the block ends without an error.

    Args:
        destination: the final name; a file that has it already is replaced. An OSError that a write ends with names it.
    """
    partial = destination.with_name(f".{destination.name}.partial-{os.getpid()}")
    try:
        yield partial
        partial.replace(destination)
    except OSError as failed:
        _name(failed, destination)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _name(failed: OSError, destination: Path) -> None:
    """A full disk names no file."""
    if failed.errno is not None and failed.filename is None:
        failed.filename = str(destination)


@contextmanager
def new_directory(destination: Path, error: type[Phi4Error] = CheckpointError) -> Iterator[Path]:
    """Gives a hidden directory to fill, which takes its final name only when the block ends without an error.

    Args:
        destination: the final name.
        error: what is raised if `destination` exists and is not an empty directory, or is one that cannot be replaced.
            An OSError that a write ends with names the directory.
    """
    destination = destination.resolve()
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise error(f"{destination} exists and is not empty; name a new directory or empty it first")
    if destination.exists() and (destination.samefile(".") or destination.is_mount()):
        raise error(f"{destination} is in use and cannot be replaced; name a new directory inside it")
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.parent / f".{destination.name}.partial-{uuid.uuid4().hex[:8]}"
    partial.mkdir()
    try:
        yield partial
        if destination.exists():
            destination.rmdir()
        os.rename(partial, destination)
    except OSError as failed:
        if isinstance(failed.filename, str) and Path(failed.filename).is_relative_to(partial):
            failed.filename = str(destination / Path(failed.filename).relative_to(partial))
        _name(failed, destination)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
