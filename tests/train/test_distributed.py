"""Several processes under torchrun do what one does."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from phi4.checkpoint.training import list_checkpoints
from phi4.data.shards import write_shards
from phi4.train.distributed import Group, own_device
from phi4.train.recipe import load_stage
from phi4.train.stage import Stage
from train.conftest import RECIPE, Setting, losses
from train.stages import align, contrast, listen
from train.toys import broken, colours

# A checkpoint stands in the middle and one at the end.
STEPS = 8


def train_in_two(setting: Setting, stage: str, run: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Trains a stage in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "phi4"]
    result = subprocess.run(
        [*launcher, *setting.arguments(stage, run), "--device=cpu", *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result


def test_two_processes_train_as_one(setting_float32: Setting, tmp_path: Path) -> None:
    """Three rows of a step, shared among two: dropout and order belong to the row, wherever it is computed."""
    two, one = tmp_path / "two", tmp_path / "one"
    result = train_in_two(setting_float32, "mixed", two, f"--steps={STEPS}")
    assert result.stdout.splitlines() == [str(two / "vision.safetensors"), str(two / "speech.safetensors")]
    assert "skipped" not in result.stderr

    stage = replace(load_stage(f"{RECIPE}:mixed"), steps=STEPS)
    setting_float32.train(stage, one)
    assert len(losses(two)) == len(losses(one))
    for ours, theirs in zip(losses(two), losses(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    packs = [
        setting_float32.load([run / "vision.safetensors", run / "speech.safetensors"]).model.state_dict()
        for run in (two, one)
    ]
    for name, tensor in packs[0].items():
        torch.testing.assert_close(tensor, packs[1][name], atol=1e-5, rtol=1e-3, msg=name)

    # What two processes saved, one continues, and the other way round.
    states = [json.loads((list_checkpoints(run)[-1] / "state.json").read_text()) for run in (two, one)]
    for state in states:
        del state["tensors_sha256"]  # sums over processes round differently
    assert states[0] == states[1]
    shutil.rmtree(list_checkpoints(two)[-1])
    for name in ("vision", "speech"):
        (two / f"{name}.safetensors").unlink()
    assert setting_float32.train(stage, two, resume=True).step == STEPS
    for ours, theirs in zip(losses(two), losses(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("stage", [contrast(), listen()], ids=lambda stage: stage.name)
def test_two_processes_pretrain_an_encoder_as_one(setting_float32: Setting, tmp_path: Path, stage: Stage) -> None:
    """No picture is compared with those of other rows, and what an objective learns begins alike everywhere."""
    train_in_two(setting_float32, stage.name, tmp_path / "two")
    setting_float32.train(stage, tmp_path / "one")
    for ours, theirs in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_two_processes_tell_once_what_both_left_out(setting_float32: Setting, tmp_path: Path) -> None:
    write_shards([broken("broken"), *colours(2, "train")], tmp_path / "data" / "colours")
    started = replace(setting_float32, data=tmp_path / "data")
    errors = train_in_two(started, "align", tmp_path / "two").stderr
    alone = started.train(align(), tmp_path / "one")
    (draws,) = alone.skipped.values()
    told = [line for line in errors.splitlines() if line.startswith("skipped")]
    assert told == [
        f"skipped {draws} draws of records that cannot be used (colours: InputError {draws}); "
        f"the first: {alone.first_skipped[0]}"
    ]


def test_without_torchrun_there_is_one_process() -> None:
    group = Group()
    tensor = torch.ones(2)
    group.sum([tensor])
    assert (tensor.tolist(), group.maximum([3, 5]), group.any(True), group.any(False)) == ([1, 1], [3, 5], True, False)
    assert group.gather("mine") == ["mine"]
    assert group.is_first


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device("cuda") == torch.device("cuda", 3)
    assert own_device("cuda:1") == torch.device("cuda", 1)
    assert own_device("cpu") == torch.device("cpu")
