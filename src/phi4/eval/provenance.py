"""Everything that is needed to repeat an evaluation: which model, with what, on what, by which command."""

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import phi4
from phi4.assistant import Assistant
from phi4.checkpoint.digest import named_digest
from phi4.checkpoint.layouts import open_checkpoint
from phi4.files import file_digest
from phi4.kernels.instructions import LEVELS

LIBRARIES = ("torch", "numpy", "tokenizers", "jiwer", "sacrebleu")


def describe_model(name: str, packs: Sequence[Path], assistant: Assistant) -> dict[str, Any]:
    """Which model this is, by the SHA-256 of its values; two evaluations of one model have equal descriptions.

    Args:
        name: as it was named.
        packs: that were loaded on top.
        assistant: the model.
    """
    directory = assistant.loaded.directory
    checkpoint = open_checkpoint(directory)
    return {
        "name": name,
        "base_digest": named_digest(checkpoint.config, checkpoint.tensors),
        "weights": {file.name: file_digest(file) for file in sorted(directory.glob("*.safetensors"))},
        "packs": {pack.name: file_digest(pack) for pack in packs},
        "modalities": sorted(assistant.loaded.config.adapters),
        "dtype": str(assistant.loaded.model.dtype).removeprefix("torch."),
        "cache_dtype": str(assistant.cache_dtype or assistant.loaded.model.dtype).removeprefix("torch."),
    }


def describe_environment(device: torch.device) -> dict[str, Any]:
    """What it ran on, and the command."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "phi4": phi4.__version__,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "kernels": LEVELS[0] if LEVELS else None,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
