"""Checkpoints of a training run: what is trained and where the run stood, written whole or not at all.

RUN/checkpoints/step-00000100/ holds `tensors.safetensors` (master weights and optimiser moments) and `state.json`.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from phi4.checkpoint.directories import write_json
from phi4.checkpoint.shards import specs_of, write_file
from phi4.checkpoint.tensor_files import map_file
from phi4.errors import CheckpointError, ConfigError
from phi4.files import file_digest, new_directory
from phi4.json_file import read_json

FOLDER = "checkpoints"
TENSORS_FILE = "tensors.safetensors"
STATE_FILE = "state.json"

# The one before the last stays, in case the last turns out to be of no use.
KEPT = 2


def save_training(run: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint and drops all but the last two.

    Args:
        run: folder of the training run.
        step: updates done.
        tensors: by name.
        state: anything that JSON can hold.

    Raises:
        CheckpointError: the disk is full or cannot be written; earlier checkpoints are whole.
    """
    target = run / FOLDER / f"step-{step:08}"
    if target.exists():
        return
    try:
        with new_directory(target) as partial:
            write_file(partial / TENSORS_FILE, specs_of(tensors), tensors.__getitem__)
            digest = file_digest(partial / TENSORS_FILE)
            write_json(partial / STATE_FILE, {"step": step, "tensors_sha256": digest, **state})
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {target} ({error}); earlier checkpoints are "
            "whole: make room and resume"
        ) from error
    for old in list_checkpoints(run)[:-KEPT]:
        shutil.rmtree(old)
    # Of writes that were killed; nobody else writes here.
    for left in (run / FOLDER).glob(".step-*.partial-*"):
        shutil.rmtree(left)


def list_checkpoints(run: Path) -> list[Path]:
    """Returns the checkpoints of a run, oldest first; what an interrupted write left behind is none."""
    return sorted((run / FOLDER).glob("step-*"))


def load_training(checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a checkpoint: its tensors in memory, and its state.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    try:
        state = read_json(checkpoint / STATE_FILE)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint} is damaged: {error}; remove it to continue from the one before") from error
    path = checkpoint / TENSORS_FILE
    tensors = {name: stored.read().clone() for name, stored in map_file(path).items()}
    if state.get("tensors_sha256") != file_digest(path):
        raise CheckpointError(f"{path} is not what was saved; remove {checkpoint} to continue from the one before")
    return tensors, state
