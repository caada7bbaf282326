"""The names of the files in a model directory, and what is done with them as files."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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


def copy_companions(source: Path, destination: Path, names: Iterable[str] = COMPANION_FILES) -> None:
    """Copies tokenizer, templates, generation and preprocessor configuration from one model directory to another."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, destination / name)
