"""On a graphics card a stage has the losses of the CPU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from phi4.train.stage import Stage
from train.conftest import Setting, losses
from train.stages import contrast, listen, mixed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")


@pytest.mark.parametrize("stage", [mixed(), contrast(), listen()], ids=lambda stage: stage.name)
def test_a_few_steps_have_the_losses_of_the_cpu(calm: Setting, tmp_path: Path, stage: Stage) -> None:
    """Without dropout, whose masks are other ones on each kind of device."""
    for device in ("cpu", "cuda"):
        calm.train(replace(stage, steps=3), tmp_path / device, device=device, dtype=torch.float32)
    for ours, theirs in zip(losses(tmp_path / "cuda"), losses(tmp_path / "cpu"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
