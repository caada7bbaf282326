import json
import math
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from phi4.errors import CheckpointError, TrainingError
from phi4.train.log import RunLog


def test_reports_go_to_the_metrics_and_to_tensorboard(tmp_path: Path) -> None:
    with RunLog(tmp_path, "stage", steps=2, first_step=0) as log:
        for step in (1, 2):
            log.report(step, {"train/a/loss": 0.5 / step})
            log.advance(step, "a 0.5")
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "train/a/loss": 0.5},
        {"step": 2, "train/a/loss": 0.25},
    ]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/a/loss")] == [(1, 0.5), (2, 0.25)]


def test_the_time_left_is_known_however_long_a_step_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"seconds": 0.0}
    monkeypatch.setattr("rich.console.monotonic", lambda: clock["seconds"])
    with RunLog(tmp_path, "stage", steps=9, first_step=4) as log:
        for step in (5, 6, 7):
            clock["seconds"] += 600
            log.advance(step, "")
        assert log.bar.tasks[0].time_remaining == 2 * 600


@pytest.mark.parametrize("ended", [CheckpointError("the checkpoint"), None])
def test_reports_that_cannot_be_closed_do_not_hide_what_ended_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Exception | None
) -> None:
    def full() -> None:
        raise OSError("no space left")

    expected = pytest.raises(CheckpointError) if ended else pytest.raises(TrainingError, match="no space left")
    with expected, RunLog(tmp_path, "stage", steps=2, first_step=0) as log:
        log.board.flush()
        monkeypatch.setattr(log.board, "close", full)
        if ended:
            raise ended


def test_a_resumed_run_forgets_what_its_checkpoint_does_not_know(tmp_path: Path) -> None:
    with RunLog(tmp_path, "stage", steps=9, first_step=0) as log:
        for step in range(1, 6):
            log.report(step, {"loss": math.sqrt(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    # TensorBoard reads files by their names, which begin with the second in which they were made.
    time.sleep(1.1)
    with RunLog(tmp_path, "stage", steps=9, first_step=3) as log:
        log.report(4, {"loss": 0.0})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    reports = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(report["step"], report["loss"]) for report in reports] == [
        (1, 1.0),
        (2, math.sqrt(2)),
        (3, math.sqrt(3)),
        (4, 0.0),
    ]
