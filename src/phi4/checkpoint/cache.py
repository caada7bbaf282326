"""The user's cache: directories that are built once and shared by every process."""

import os
from collections.abc import Callable
from pathlib import Path

from phi4.errors import CheckpointError
from phi4.files import new_directory


def cache_home() -> Path:
    """Returns `$PHI4_HOME`, else `$XDG_CACHE_HOME/phi4`, else `~/.cache/phi4`."""
    if home := os.environ.get("PHI4_HOME"):
        return Path(home)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "phi4"


def cached_directory(name: str, build: Callable[[Path], None]) -> Path:
    """Returns a directory of the cache, building it first if it is not there.

    Two processes may build it at the same time; the first to finish gives it its name and the other's is dropped.

    Args:
        name: of the directory inside the cache.
        build: fills an empty directory; if it raises, nothing is left behind.

    Raises:
        CheckpointError: the cache cannot be written.
    """
    directory = cache_home() / name
    if directory.is_dir():
        return directory
    try:
        with new_directory(directory) as partial:
            build(partial)
    except (OSError, CheckpointError) as error:
        if directory.is_dir():
            return directory
        if isinstance(error, OSError):
            raise CheckpointError(f"the cache directory {directory} cannot be written: {error}") from error
        raise
    return directory
