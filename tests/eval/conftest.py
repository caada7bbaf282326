"""The tiny model as it is evaluated."""

from pathlib import Path

import pytest
import torch

from phi4.assistant import Assistant


@pytest.fixture(scope="session")
def assistant(tiny_directory: Path) -> Assistant:
    """In fp32."""
    return Assistant.load(tiny_directory, dtype=torch.float32, device="cpu")
