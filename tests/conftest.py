"""The tiny checkpoint that most tests run on, and settings for all tests."""

from pathlib import Path

import pytest
import torch

from phi4.checkpoint.initialise import initialise
from phi4.checkpoint.weights import LoadedModel, load_model

# Tests run in two processes on two cores; more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random multimodal checkpoint in the released layout, complete with tokenizer."""
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    initialise("tiny", directory)
    return directory


@pytest.fixture(scope="session")
def tiny(tiny_directory: Path) -> LoadedModel:
    """The tiny checkpoint in fp32."""
    return load_model(tiny_directory, dtype=torch.float32)
