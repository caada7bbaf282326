"""Model directories that appear complete or not at all, and the names of the files inside them."""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phi4.errors import CheckpointError

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
NESTED_PREPROCESSOR_FILE = "processor_config.json"

# What stands beside the weights and does not depend on how they are stored.
COMPANION_FILES = (
    GENERATION_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    PREPROCESSOR_FILE,
    NESTED_PREPROCESSOR_FILE,
    "LICENSE",
    "NOTICE",
)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes one JSON object, indented by two as the release's files are, keys in the order given."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def new_directory(destination: Path) -> Iterator[Path]:
    """Gives a hidden directory to fill, which takes its final name only when the block ends without an error.

    Raises:
        CheckpointError: `destination` exists and is not an empty directory, or is one that cannot be replaced.
    """
    destination = destination.resolve()
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError(f"{destination} exists and is not empty; name a new directory or empty it first")
    if destination.exists() and (destination.samefile(".") or destination.is_mount()):
        raise CheckpointError(f"{destination} is in use and cannot be replaced; name a new directory inside it")
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.parent / f".{destination.name}.partial-{uuid.uuid4().hex[:8]}"
    partial.mkdir()
    try:
        yield partial
        if destination.exists():
            destination.rmdir()
        os.rename(partial, destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_companions(source: Path, destination: Path, names: Iterable[str] = COMPANION_FILES) -> None:
    """Copies tokenizer, templates, generation and preprocessor configuration from one model directory to another."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, destination / name)
