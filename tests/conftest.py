"""The tiny checkpoint that most tests run on, and settings for all tests."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

from phi4.checkpoint.initialise import initialise
from phi4.checkpoint.weights import LoadedModel, load_model

# Colours would cut through the words that tests look for, and a key would close their servers.
for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "COLUMNS", "PHI4_API_KEY"):
    os.environ.pop(name, None)

# Tests are never timed: a slow machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

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
