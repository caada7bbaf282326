"""The tiny checkpoint in every form, and directories that a test may break."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from phi4.checkpoint.convert import convert


@pytest.fixture(scope="session")
def packed_directory(tiny_directory: Path) -> Path:
    """The tiny checkpoint as a base language model, `base/`, and two packs beside it."""
    directory = tiny_directory.parent / "packed"
    convert(tiny_directory, directory, "packs")
    return directory


@pytest.fixture(scope="session")
def converted_directory(tiny_directory: Path) -> Path:
    """The tiny checkpoint as transformers and PEFT store it."""
    directory = tiny_directory.parent / "converted"
    convert(tiny_directory, directory, "converted")
    return directory


@pytest.fixture
def model_directory(tiny_directory: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint for one test to break."""
    return Path(shutil.copytree(tiny_directory, tmp_path / "model"))


@pytest.fixture
def edit_tensors() -> Callable[[Path, Callable[[dict[str, torch.Tensor]], object]], None]:
    """Rewrites a safetensors file after a function changed its tensors."""

    def edit(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return edit


@pytest.fixture
def edit_json() -> Callable[[Path, dict[str, Any]], None]:
    """Changes some keys of a JSON file."""

    def edit(path: Path, changes: dict[str, Any]) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit
