"""`make nano` goes through every stage, each from the packs of the one before."""

import subprocess
from pathlib import Path

from phi4.train.recipe import load_stages

ROOT = Path(__file__).parents[2]


def test_make_nano_trains_every_stage_in_the_order_of_the_recipes(tmp_path: Path) -> None:
    command = ["make", "--dry-run", "nano", f"NANO={tmp_path}"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    trained = [word for line in printed.splitlines() for word in line.split() if word.startswith("recipes/nano_")]
    names = ("nano_vision", "nano_speech", "nano_joint")
    assert trained == [
        f"recipes/{name}.py:{stage}" for name in names for stage in load_stages(ROOT / f"recipes/{name}.py")
    ]
