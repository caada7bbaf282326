"""Kernels have no gradients: their tests keep none. Threads that a test chooses are its own."""

from collections.abc import Iterator

import pytest
import torch


def not_aligned(count: int) -> torch.Tensor:
    """Float32 zeros that no kernel takes: they begin one byte behind where the processor expects them."""
    return torch.frombuffer(bytearray(4 * count + 1), dtype=torch.float32, offset=1, count=count)


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
