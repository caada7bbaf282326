"""How much memory a device has."""

from pathlib import Path

import pytest
import torch

from phi4 import memory
from phi4.memory import memory_bytes


def test_this_machine_has_memory() -> None:
    assert memory_bytes(torch.device("cpu")) > 2**28


def test_a_container_has_what_it_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMIT_FILES", (file, tmp_path / "missing"))
    file.write_text(f"{2**28}\n")
    assert memory_bytes(torch.device("cpu")) == 2**28
    file.write_text("max\n")
    assert memory_bytes(torch.device("cpu")) > 2**28
