"""Kernels have no gradients: their tests keep none. Threads that a test chooses are its own."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def any_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def two_threads(any_threads: None) -> None:
    torch.set_num_threads(2)
