from pathlib import Path

import pytest
import torch

from phi4.checkpoint.training import list_checkpoints, load_training, save_training
from phi4.errors import CheckpointError

TENSORS = {"master.a": torch.arange(6.0).view(2, 3), "exp_avg.a": torch.ones(2, 3), "step.a": torch.tensor(4.0)}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_training(tmp_path, 12, TENSORS, {"batches": {"draws": [3, 4]}})
    tensors, state = load_training(tmp_path / "checkpoints" / "step-00000012")
    assert (state["step"], state["batches"]) == (12, {"draws": [3, 4]})
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in tensors.items())


def test_loaded_tensors_outlive_their_file(tmp_path: Path) -> None:
    save_training(tmp_path, 1, TENSORS, {})
    (checkpoint,) = list_checkpoints(tmp_path)
    tensors, _ = load_training(checkpoint)
    (checkpoint / "tensors.safetensors").write_bytes(b"")
    assert torch.equal(tensors["exp_avg.a"], torch.ones(2, 3))


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 100, 1000):
        save_training(tmp_path, step, TENSORS, {})
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000100", "step-00001000"]


def test_what_an_interrupted_write_left_behind_is_no_checkpoint(tmp_path: Path) -> None:
    save_training(tmp_path, 1, TENSORS, {})
    (tmp_path / "checkpoints" / ".step-00000002.partial-12345678").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001"]


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes) -> None:
    save_training(tmp_path, 1, TENSORS, {})
    (checkpoint,) = list_checkpoints(tmp_path)
    (checkpoint / "state.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-00000001 is damaged: .*; remove it"):
        load_training(checkpoint)


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    save_training(tmp_path, 1, TENSORS, {})
    (checkpoint,) = list_checkpoints(tmp_path)
    content = bytearray((checkpoint / "tensors.safetensors").read_bytes())
    content[-3] ^= 1
    (checkpoint / "tensors.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not what was saved; remove"):
        load_training(checkpoint)


def test_the_next_checkpoint_removes_what_a_killed_write_left(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".step-00000002.partial-12345678").mkdir(parents=True)
    save_training(tmp_path, 3, TENSORS, {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
