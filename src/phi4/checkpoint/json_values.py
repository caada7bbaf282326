"""Single values of a JSON object, checked: their errors name the key and what was found."""

import math
from collections.abc import Mapping
from typing import Any

from phi4.errors import ConfigError

MAX_LAYERS = 1024


def required(raw: Mapping[str, Any], key: str) -> Any:
    """Returns a value that must be there.

    Raises:
        ConfigError: it is not.
    """
    if key not in raw:
        raise ConfigError(f"there is no {key!r}, which is needed")
    return raw[key]


def section(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Returns an object inside the object.

    Raises:
        ConfigError: it is missing, or something else.
    """
    value = required(raw, key)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} must be an object, not {value!r}")
    return value


def size(raw: Mapping[str, Any], key: str, at_least: int = 1) -> int:
    """Returns a whole number.

    Raises:
        ConfigError: it is missing, smaller, or something else.
    """
    value = required(raw, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ConfigError(f"{key} must be a whole number of at least {at_least}, not {value!r}")
    return value


def num_layers(raw: Mapping[str, Any], key: str) -> int:
    """Returns a number of layers; each becomes a module, so that an absurd number must not be tried.

    Raises:
        ConfigError: it is missing, below 1 or above 1024.
    """
    value = size(raw, key)
    if value > MAX_LAYERS:
        raise ConfigError(f"{key} is {value}; more than {MAX_LAYERS} layers are not built")
    return value


def number(raw: Mapping[str, Any], key: str) -> float:
    """Returns a finite number of at least 0.

    Raises:
        ConfigError: it is missing, negative, or something else.
    """
    value = required(raw, key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ConfigError(f"{key} must be a number of at least 0, not {value!r}")
    return float(value)
