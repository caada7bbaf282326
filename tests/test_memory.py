"""How much memory a device has."""

import torch

from phi4.memory import memory_bytes


def test_this_machine_has_memory() -> None:
    assert memory_bytes(torch.device("cpu")) > 2**28
