"""Runs a pipeline's tasks with one of datatrove's executors, and returns when all of them are done."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import multiprocess
from datatrove.executor import LocalPipelineExecutor
from loguru import logger

from phi4.errors import ConfigError, DataError

ExecutorName = Literal["local", "slurm", "ray"]
EXECUTORS: tuple[ExecutorName, ...] = get_args(ExecutorName)

PRELOADED = ["phi4.data.curate.block", "phi4.data.curate.text", "spacy"]

# How often the shared folder is asked whether Slurm's tasks are done.
SLURM_POLL_S = 10.0


def run_tasks(executor: ExecutorName, pipeline: list[Any], tasks: int, workers: int, logs: Path) -> None:
    """Runs the tasks that have not been done yet.

    Slurm takes its partition and time limit from the variables that sbatch knows: SBATCH_PARTITION, SBATCH_TIMELIMIT.

    Args:
        executor: where.
        pipeline: blocks of datatrove.
        tasks: how many there are.
        workers: how many run at once; one runs in this process if `executor` is local.
        logs: where finished tasks are marked.

    Raises:
        ConfigError: the executor is not installed or not told what it needs.
        DataError: tasks were not done.
    """
    match executor:
        case "local":
            # Workers are forks of one process that has imported what takes seconds.
            multiprocess.set_forkserver_preload(PRELOADED)
            with _quiet():
                LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(workers, tasks), logging_dir=str(logs)).run()
        case "ray":
            _run_on_ray(pipeline, tasks, workers, logs)
        case "slurm":
            _run_on_slurm(pipeline, tasks, workers, logs)
    undone = [task for task in range(tasks) if not (logs / "completions" / f"{task:05}").exists()]
    if undone:
        raise DataError(
            f"{len(undone)} of {tasks} tasks were not done, the first is {undone[0]}; its log is under {logs}. The "
            "same command goes on with them"
        )


def _run_on_ray(pipeline: list[Any], tasks: int, workers: int, logs: Path) -> None:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("the executor ray needs ray: pip install ray") from error
    from datatrove.executor.ray import RayPipelineExecutor

    # A cluster that RAY_ADDRESS names, or one on this machine, which serves all phases and ends with this process.
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    RayPipelineExecutor(pipeline, tasks=tasks, workers=workers, logging_dir=str(logs), mem_per_cpu_gb=1).run()


def _run_on_slurm(pipeline: list[Any], tasks: int, workers: int, logs: Path) -> None:
    from datatrove.executor import SlurmPipelineExecutor

    told = {name: os.environ.get(f"SBATCH_{name}") for name in ("PARTITION", "TIMELIMIT")}
    if None in told.values():
        raise ConfigError("the executor slurm needs to know where and how long: set SBATCH_PARTITION, SBATCH_TIMELIMIT")
    submitted = SlurmPipelineExecutor(
        pipeline,
        tasks=tasks,
        workers=workers,
        time=told["TIMELIMIT"],
        partition=told["PARTITION"],
        logging_dir=str(logs),
        venv_path=str(Path(sys.prefix) / "bin" / "activate"),
        mail_type="NONE",
    )
    submitted.run()
    while submitted.get_incomplete_ranks(skip_completed=True) and _in_queue(submitted.job_id):
        time.sleep(SLURM_POLL_S)


def _in_queue(job: str) -> bool:
    """Whether Slurm still means to do, or does, any task of a job."""
    answer = subprocess.run(["squeue", "--noheader", f"--jobs={job}"], capture_output=True, text=True, check=False)
    return bool(answer.stdout.strip())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without datatrove's running commentary; errors are raised all the same."""
    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")
