"""What goes wrong ends with an error that says what, and never with a checkpoint or pack that is of no use."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from full_disk import no_file_above
from phi4.checkpoint.training import list_checkpoints, load_training
from phi4.data.order import Order
from phi4.data.record import Record, Split
from phi4.data.shards import write_shards
from phi4.errors import CheckpointError, DataError, TrainingError
from phi4.processing.messages import Message
from phi4.train.log import RunLog
from train.conftest import Setting, read_metrics
from train.stages import align, contrast
from train.toys import broken, colours, record


def with_records(setting: Setting, folder: Path, records: list[Record]) -> Setting:
    """The same setting with other pictures."""
    write_shards(records, folder / "colours")
    return replace(setting, data=folder)


def assert_nothing_came_of_it(run: Path) -> None:
    assert not list_checkpoints(run)
    assert not list(run.rglob("*.safetensors"))


def test_a_poisoned_weight_stops_the_first_step(setting: Setting, tmp_path: Path) -> None:
    pack = tmp_path / "vision.safetensors"
    with safe_open(setting.packs[0], framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(setting.packs[0])
    name = next(name for name in tensors if name.endswith("img_projection.0.bias"))
    tensors[name][3] = float("nan")
    save_file(tensors, pack, metadata)
    with pytest.raises(TrainingError, match=r"step 0: the loss is .*nan.*There is no checkpoint yet"):
        replace(setting, packs=(pack,)).train(replace(align(), save_every=1), tmp_path / "run")
    assert_nothing_came_of_it(tmp_path / "run")


def test_a_loss_that_is_no_number_leaves_the_checkpoints_before_it(setting: Setting, tmp_path: Path) -> None:
    stage = replace(align(), steps=20, save_every=1, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"no weight was changed by it\. The last checkpoint is .*lower the"):
        setting.train(stage, tmp_path / "run")
    last = list_checkpoints(tmp_path / "run")[-1]
    tensors, state = load_training(last)
    assert last.name == f"step-{state['step']:08}"
    assert len(read_metrics(tmp_path / "run")) >= state["step"]
    assert all(bool(tensor.isfinite().all()) for name, tensor in tensors.items() if name.startswith("master."))
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_weights_that_overflow_in_the_very_last_step_are_not_saved(setting: Setting, tmp_path: Path) -> None:
    stage = replace(align(), steps=1, warmup_steps=0, learning_rate=1e6)
    with pytest.raises(TrainingError, match="a trained weight is no number any more; nothing of it is saved"):
        setting.train(stage, tmp_path / "run", dtype=torch.float16)
    assert_nothing_came_of_it(tmp_path / "run")


def test_a_full_disk_leaves_the_earlier_checkpoint_whole_and_nothing_half_written(
    setting: Setting, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stage = replace(align(), save_every=1)
    whole = setting.train(stage, run).packs["vision"].read_bytes()
    shutil.rmtree(list_checkpoints(run)[-1])
    (earlier,) = list_checkpoints(run)
    with (
        no_file_above(20_000),
        pytest.raises(CheckpointError, match=r"step 3 could not be written .*File too large.*make room and resume"),
    ):
        setting.train(stage, run, resume=True)
    assert list((run / "checkpoints").iterdir()) == [earlier]
    assert load_training(earlier)[1]["step"] == 2
    assert setting.train(stage, run, resume=True).packs["vision"].read_bytes() == whole


def test_a_full_disk_while_the_pack_is_written_leaves_no_pack(setting: Setting, tmp_path: Path) -> None:
    run = tmp_path / "run"
    setting.train(align(), run).packs["vision"].unlink()
    with (
        no_file_above(20_000),
        pytest.raises(CheckpointError, match=r"result could not be written .*File too large.*make room and resume"),
    ):
        setting.train(align(), run, resume=True)
    assert {path.name for path in run.iterdir()} == {"checkpoints", "metrics.jsonl", "tensorboard"}


def test_a_full_disk_when_a_run_goes_on_leaves_what_it_reported(setting: Setting, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stage = replace(align(), save_every=1)
    setting.train(stage, run)
    shutil.rmtree(list_checkpoints(run)[-1])
    before = read_metrics(run)
    with no_file_above(50), pytest.raises(TrainingError, match=r"reports .* cannot be written: .*File too large"):
        setting.train(stage, run, resume=True)
    assert read_metrics(run) == before
    assert not list(run.glob(".*"))


def report_until_the_disk_is_full(run: Path) -> None:
    with RunLog(run, "stage", steps=2, first_step=0) as log:
        log.report(1, {"loss": 2.0})
        with no_file_above(20):
            log.report(2, {"loss": 1.0})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
def test_a_full_disk_between_two_checkpoints_stops_the_run_with_what_to_do(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(TrainingError, match="File too large; make room, and go on with --resume"):
        report_until_the_disk_is_full(tmp_path)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # its last words belong to this test
    assert (tmp_path / "metrics.jsonl").read_text().startswith('{"step": 1, "loss": 2.0}\n')


def test_a_flipped_byte_in_a_shard_is_found_before_any_step(setting: Setting, tmp_path: Path) -> None:
    data = Path(shutil.copytree(setting.data, tmp_path / "data"))
    shard = data / "colours" / "shard-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-00000\.arrow is damaged"):
        replace(setting, data=data).train(align(), tmp_path / "run")
    assert_nothing_came_of_it(tmp_path / "run")


def test_a_data_set_that_is_not_there_is_named(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="elsewhere/colours"):
        replace(setting, data=tmp_path / "elsewhere").train(align(), tmp_path / "run")


def test_a_broken_picture_is_left_out_and_counted_each_time(setting: Setting, tmp_path: Path) -> None:
    records = [broken("broken"), *colours(8, "train")]
    stage = replace(align(), steps=4)  # some four epochs
    result = with_records(setting, tmp_path / "data", records).train(stage, tmp_path / "run")
    _, state = load_training(list_checkpoints(tmp_path / "run")[-1])
    order = Order({"colours": len(records)}, {"colours": 1.0}, stage.seed)
    streams = enumerate(state["batches"]["draws"])
    drawn = [order.draw(stream + stage.rows_per_step * turn) for stream, draws in streams for turn in range(draws)]
    times = sum(draw.index == 0 for draw in drawn)
    assert times > 1
    assert [report["skipped"] for report in read_metrics(tmp_path / "run") if "skipped" in report][-1] == times
    assert result.skipped == {"colours: InputError": times}
    (told,) = result.first_skipped
    assert told.startswith("colours, record 'broken': ")
    assert (tmp_path / "run" / "vision.safetensors").exists()


def test_a_run_that_goes_on_tells_what_it_left_out_since_then(setting: Setting, tmp_path: Path) -> None:
    texts = with_records(setting, tmp_path / "data", [broken("broken"), *colours(2, "train")])
    stage = replace(align(), steps=4, save_every=2)
    whole = texts.train(stage, tmp_path / "run")
    shutil.rmtree(list_checkpoints(tmp_path / "run")[-1])
    resumed = texts.train(stage, tmp_path / "run", resume=True)
    assert resumed.first_skipped == whole.first_skipped
    before = [report["skipped"] for report in read_metrics(tmp_path / "run") if "skipped" in report][1]
    assert before > 0
    assert resumed.skipped == {"colours: InputError": whole.skipped["colours: InputError"] - before}
    nothing_left = texts.train(stage, tmp_path / "run", resume=True)
    assert (dict(nothing_left.skipped), nothing_left.first_skipped) == ({}, ())


def test_too_many_broken_pictures_stop_the_training(setting: Setting, tmp_path: Path) -> None:
    records = [*(broken(f"broken-{number}") for number in range(3)), *colours(40, "train")]
    with pytest.raises(DataError, match=r"records cannot be used; the first are: colours, record 'broken-\d'"):
        with_records(setting, tmp_path / "data", records).train(replace(align(), steps=40), tmp_path / "run")


def test_a_broken_record_of_the_validation_is_named_before_any_step(setting: Setting, tmp_path: Path) -> None:
    records = [*colours(8, "train"), broken("wanted", "valid")]
    with pytest.raises(DataError, match="'wanted' cannot be used for validation"):
        with_records(setting, tmp_path / "data", records).train(align(), tmp_path / "run")
    assert_nothing_came_of_it(tmp_path / "run")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_text_for_a_contrastive_stage_is_a_broken_record(setting: Setting, tmp_path: Path, split: Split) -> None:
    text = record("words", split, Message("user", "Hello?"), "red")
    texts = with_records(setting, tmp_path / "data", [*colours(4, "train"), text])
    if split == "valid":
        with pytest.raises(DataError, match=r"'words' cannot be used for validation: .* no medium for vision"):
            texts.train(contrast(), tmp_path / "run")
        assert_nothing_came_of_it(tmp_path / "run")
    else:
        assert texts.train(contrast(), tmp_path / "run").step == contrast().steps
        assert [one["skipped"] for one in read_metrics(tmp_path / "run") if "skipped" in one][-1] > 0
