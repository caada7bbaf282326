"""Phi-4-Mini and Phi-4-Multimodal: run, serve, adapt and extend them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phi4.assistant import Answer, AnswerStream, Assistant
    from phi4.engine.engine import Engine
    from phi4.engine.request import Request
    from phi4.engine.sampling import Sampling
    from phi4.errors import (
        CapacityError,
        CheckpointError,
        ClosedError,
        ConfigError,
        DataError,
        InputError,
        Phi4Error,
        TrainingError,
    )
    from phi4.modality import Modality
    from phi4.processing.messages import Image, Message, Signal, Sound

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AnswerStream",
    "Assistant",
    "CapacityError",
    "CheckpointError",
    "ClosedError",
    "ConfigError",
    "DataError",
    "Engine",
    "Image",
    "InputError",
    "Message",
    "Modality",
    "Phi4Error",
    "Request",
    "Sampling",
    "Signal",
    "Sound",
    "TrainingError",
]

_HOMES = {
    "phi4.assistant": ("Answer", "AnswerStream", "Assistant"),
    "phi4.engine.engine": ("Engine",),
    "phi4.engine.request": ("Request",),
    "phi4.engine.sampling": ("Sampling",),
    "phi4.errors": (
        "CapacityError",
        "CheckpointError",
        "ClosedError",
        "ConfigError",
        "DataError",
        "InputError",
        "Phi4Error",
        "TrainingError",
    ),
    "phi4.modality": ("Modality",),
    "phi4.processing.messages": ("Image", "Message", "Signal", "Sound"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use: `phi4 --help` must not wait for torch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'phi4' has no attribute {name!r}")
