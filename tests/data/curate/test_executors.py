"""A local Ray, and Slurm, here a stand-in that runs what it is given on the spot, run the same tasks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.curate.recipes import HEAD, PROSE, write_json_lines
from phi4.data.curate.executors import ExecutorName
from phi4.data.curate.run import Curated, curate
from phi4.errors import ConfigError, DataError

BODY = """Curation(
    (Collection("prose", "*.jsonl", JsonLines(), licence="CC0-1.0"),),
    (text.language("en"), ExactDuplicates()))"""

# Takes a job array as sbatch does, and runs its tasks on the spot.
SBATCH = """
script="${@: -1}"
for task in $(seq 0 $(($(grep -oP '(?<=--array=0-)\\d+' "$script")))); do
    SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=7 bash "$script" >> "$FAKE_SLURM_LOG" 2>&1
done
echo "Submitted batch job 7"
"""
SRUN = """
until [ "$1" = launch_pickled_pipeline ]; do shift; done
"$@"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_json_lines(tmp_path / "raw/0.jsonl", [*PROSE, PROSE[0]])
    (tmp_path / "recipe.py").write_text(HEAD + f"    return {BODY}\n")
    return tmp_path


def run(folder: Path, executor: ExecutorName) -> Curated:
    out = folder / executor
    return curate("recipe.py:check", folder / "raw", out, 2, executor, "test", lambda _: None)


def fake_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, srun: str = SRUN) -> None:
    commands = folder / "commands"
    commands.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", srun), ("squeue", ""), ("scontrol", "echo node")):
        (commands / name).write_text(f"#!/bin/bash\n{script}")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM_LOG", str(folder / "log"))
    monkeypatch.setenv("SLURM_NODELIST", "node")
    monkeypatch.setenv("SBATCH_PARTITION", "all")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1:00:00")


@pytest.mark.slow
def test_slurm_gives_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_slurm(folder, monkeypatch)
    manifests = [(run(folder, name).shards / "manifest.json").read_bytes() for name in ("local", "slurm")]
    assert manifests[0] == manifests[1]


def test_tasks_that_slurm_gave_up_are_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_slurm(folder, monkeypatch, srun="false")
    with pytest.raises(DataError, match="1 of 1 tasks were not done"):
        run(folder, "slurm")


def test_slurm_wants_to_know_where_and_how_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SBATCH_PARTITION", raising=False)
    with pytest.raises(ConfigError, match="SBATCH_PARTITION"):
        run(folder, "slurm")


@pytest.mark.slow
def test_ray_gives_the_same_bytes(folder: Path) -> None:
    # A process of its own: here warnings are errors, and one in the thread that submits tasks makes datatrove wait for
    # ever.
    command = "-m phi4 curate recipe.py:check --in raw --out ray --workers 2 --executor ray"
    subprocess.run([sys.executable, *command.split()], check=True, timeout=300)
    local = run(folder, "local").shards
    assert (folder / "ray/check/manifest.json").read_bytes() == (local / "manifest.json").read_bytes()
