"""How much memory a device has, and a process took."""

import subprocess
import sys
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


def test_the_peak_is_this_process_own_whoever_started_it() -> None:
    held = b"1" * 2**29
    code = "from phi4.memory import peak_resident_bytes; print(peak_resident_bytes())"
    answered = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**26 < int(answered.stdout) < len(held)
