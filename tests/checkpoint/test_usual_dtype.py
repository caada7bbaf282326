"""Which type a model computes in unless somebody says."""

from pathlib import Path

import pytest
import torch

from phi4.assistant import Assistant
from phi4.checkpoint import usual_dtype as module
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.usual_dtype import usual_dtype
from phi4.checkpoint.weights import load_model, save_model

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["with-bf16", "without-bf16"])
def has_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(module, "multiplies_bf16", lambda device: device.type != "cpu" or request.param)
    return bool(request.param)


def test_a_cpu_without_bf16_takes_float32(tiny_directory: Path, has_bf16: bool) -> None:
    expected = torch.bfloat16 if has_bf16 else torch.float32
    assert usual_dtype(open_checkpoint(tiny_directory), CPU) == expected
    assert Assistant.load(tiny_directory, device="cpu").loaded.model.dtype == expected
    assert Assistant.load(tiny_directory, device="cpu", dtype=torch.bfloat16).loaded.model.dtype == torch.bfloat16


def test_other_devices_and_other_types_are_left_alone(tiny_directory: Path, tmp_path: Path, has_bf16: bool) -> None:
    assert usual_dtype(open_checkpoint(tiny_directory), torch.device("cuda")) == torch.bfloat16
    half = load_model(tiny_directory, dtype=torch.float16)
    save_model(half.model, half.config, tmp_path / "half")
    assert usual_dtype(open_checkpoint(tmp_path / "half"), CPU) == torch.float16


def test_what_would_take_more_than_half_of_the_memory_stays_as_it_is(
    tiny_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "multiplies_bf16", lambda device: False)
    needed = 4 * sum(tensor.numel() for tensor in load_model(tiny_directory).model.state_dict().values())
    for memory, expected in ((2 * needed, torch.float32), (2 * needed - 1, torch.bfloat16)):
        monkeypatch.setattr(module, "memory_bytes", lambda device, memory=memory: memory)
        assert usual_dtype(open_checkpoint(tiny_directory), CPU) == expected
