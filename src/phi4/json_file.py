"""Reads the JSON files of a model directory."""

import json
from pathlib import Path
from typing import Any

from phi4.errors import ConfigError


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that must hold one JSON object.

    Raises:
        ConfigError: the file is missing or unreadable, is not JSON, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; a model directory needs it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value
