"""Stopping and going on: bit for bit, and only with what the run began with."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.training import list_checkpoints
from phi4.checkpoint.usual_dtype import usual_dtype
from phi4.errors import CheckpointError, TrainingError
from phi4.train.run import train_stage
from train.conftest import Setting, losses, read_metrics, write_toys
from train.stages import align
from train.toys import colours

PACKS = ("vision.safetensors", "speech.safetensors")


@pytest.fixture
def stopped(setting: Setting, tmp_path: Path) -> Path:
    """The folder of a run of `align` as if it had been killed in its last step."""
    run = tmp_path / "stopped"
    setting.train(replace(align(), save_every=1), run)
    shutil.rmtree(list_checkpoints(run)[-1])
    (run / "vision.safetensors").unlink()
    return run


def test_a_run_that_was_stopped_and_resumed_is_one_that_never_stopped(setting: Setting, tmp_path: Path) -> None:
    """With dropout, augmentation, bf16 and two modalities; a real process gets a real SIGTERM between two saves."""
    run, whole = tmp_path / "stopped", tmp_path / "whole"
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "phi4", *setting.arguments("paused", run)]
    process = subprocess.Popen(
        command, env=one_thread | {"WAIT_IN": str(run)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (run / "waiting").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    (run / "go").touch()
    output, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "--resume continues" in output
    assert [path.name for path in list_checkpoints(run)] == ["step-00000004", "step-00000006"]
    assert not list(run.glob("*.safetensors"))

    # In processes like the first one: how threads were set up decides how some kernels add up.
    for arguments in ([*setting.arguments("paused", run), "--resume"], setting.arguments("paused", whole)):
        subprocess.run([sys.executable, "-m", "phi4", *arguments], env=one_thread, check=True, capture_output=True)
    for name in PACKS:
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert losses(run) == losses(whole)
    ends = [list_checkpoints(folder)[-1] for folder in (run, whole)]
    for name in ("tensors.safetensors", "state.json"):
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes()


def test_a_killed_run_loses_what_came_after_its_last_checkpoint_and_no_more(setting: Setting, stopped: Path) -> None:
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "tr')  # the line that it was about to write
    setting.train(replace(align(), save_every=1), stopped, resume=True)
    assert [report["step"] for report in read_metrics(stopped) if "learning_rate" in report] == [1, 2, 3]
    assert (stopped / "vision.safetensors").exists()


def test_resuming_a_finished_run_writes_its_packs_again(setting: Setting, stopped: Path) -> None:
    pack = setting.train(align(), stopped, resume=True).packs["vision"]
    before = pack.read_bytes()
    assert setting.train(align(), stopped, resume=True).packs["vision"].read_bytes() == before


def test_resuming_a_run_that_never_saved_begins_it(setting: Setting, tmp_path: Path) -> None:
    assert setting.train(align(), tmp_path / "run", resume=True).step == align().steps


def test_how_often_a_run_saves_may_change(setting: Setting, stopped: Path) -> None:
    assert setting.train(replace(align(), save_every=7, valid_every=2), stopped, resume=True).step == align().steps


@pytest.mark.parametrize("changes", [{"learning_rate": 1.0}, {"steps": 9}, {"seed": 3}, {"trains": ("vision",)}])
def test_resuming_with_another_recipe_is_refused(setting: Setting, stopped: Path, changes: dict[str, Any]) -> None:
    before = list_checkpoints(stopped)
    with pytest.raises(TrainingError, match="another recipe; resume with what the run began with"):
        setting.train(replace(align(), **changes), stopped, resume=True)
    assert list_checkpoints(stopped) == before


def test_resuming_with_other_data_is_refused(setting: Setting, stopped: Path, tmp_path: Path) -> None:
    write_toys(tmp_path / "data", {"colours": lambda number, split: colours(number + 1, split)})
    with pytest.raises(TrainingError, match="another data;"):
        replace(setting, data=tmp_path / "data").train(align(), stopped, resume=True)


def test_resuming_with_other_packs_is_refused(setting: Setting, stopped: Path) -> None:
    with pytest.raises(TrainingError, match="another packs;"):
        replace(setting, packs=setting.packs[:1]).train(align(), stopped, resume=True)


def test_resuming_in_another_dtype_is_refused(setting: Setting, stopped: Path) -> None:
    usual = usual_dtype(open_checkpoint(setting.base), torch.device("cpu"))
    other = torch.float32 if usual == torch.bfloat16 else torch.bfloat16
    with pytest.raises(TrainingError, match="another dtype;"):
        train_stage(align(), setting.base, setting.packs, setting.data, stopped, resume=True, dtype=other)


def test_the_order_in_which_packs_are_named_does_not_matter(setting: Setting, stopped: Path) -> None:
    assert replace(setting, packs=setting.packs[::-1]).train(align(), stopped, resume=True).step == align().steps


def test_a_folder_that_holds_a_run_is_not_begun_again(setting: Setting, stopped: Path) -> None:
    before = (stopped / "metrics.jsonl").read_text()
    with pytest.raises(TrainingError, match="--resume"):
        setting.train(align(), stopped)
    assert (stopped / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_continues(
    setting: Setting, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    stage = replace(align(), save_every=1)
    before = setting.train(stage, run).packs["vision"].read_bytes()
    damaged = list_checkpoints(run)[-1] / name
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=str(damaged.parent)):
        setting.train(stage, run, resume=True)
    shutil.rmtree(damaged.parent)
    assert setting.train(stage, run, resume=True).packs["vision"].read_bytes() == before
