"""`make nano` and `make nano-long` go through every stage, each from the packs of the one before."""

import subprocess
from pathlib import Path

import pytest

from phi4.train.recipe import load_stages

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("target", "names"), [("nano", ("nano_vision", "nano_speech", "nano_joint")), ("nano-long", ("nano_long",))]
)
def test_every_stage_is_trained_in_the_order_of_the_recipes(
    target: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    command = ["make", "--dry-run", target, f"NANO={tmp_path}"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    trained = [word for line in printed.splitlines() for word in line.split() if word.startswith("recipes/nano_")]
    assert trained == [
        f"recipes/{name}.py:{stage}" for name in names for stage in load_stages(ROOT / f"recipes/{name}.py")
    ]
