"""A stage from files to files: what changes, what does not, and what is written about it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from phi4.checkpoint.convert import convert
from phi4.checkpoint.keymap import adapter_of
from phi4.checkpoint.packs import read_pack
from phi4.checkpoint.quantise import SCHEMES, quantise
from phi4.checkpoint.training import list_checkpoints, load_training
from phi4.data.example import Example
from phi4.data.shards import write_shards
from phi4.errors import ConfigError, TrainingError
from phi4.model.multimodal import Phi4Multimodal
from phi4.train import run as run_module
from phi4.train.objectives import AnswerLoss, Loss
from phi4.train.parts import belongs_to, select_trained
from phi4.train.recipe import load_stage
from phi4.train.stage import Source, Stage
from phi4.train.trainer import Trainer
from train.conftest import RECIPE, Setting, losses, read_metrics
from train.stages import align, contrast, listen, mixed
from train.toys import colours


def changed_tensors(setting: Setting, run: Path) -> set[str]:
    """Names of the tensors that differ between the packs before and after a run."""
    packs = [run / pack.name if (run / pack.name).exists() else pack for pack in setting.packs]
    before, after = setting.load().model.state_dict(), setting.load(packs).model.state_dict()
    assert before.keys() == after.keys()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_what_a_stage_names_changes_and_nothing_else(setting: Setting, finished: Path) -> None:
    changed = changed_tensors(setting, finished)
    assert all(any(belongs_to(name, part) for part in mixed().trains) for name in changed)
    assert all(any(belongs_to(name, part) for name in changed) for part in mixed().trains)
    assert {adapter_of(name) for name in changed} == {None, "vision", "speech"}


def test_a_checkpoint_holds_what_trains_and_nothing_else(setting: Setting, finished: Path) -> None:
    tensors, _ = load_training(list_checkpoints(finished)[-1])
    trained = select_trained(setting.load().model, mixed().trains)
    kinds = ("master", "exp_avg", "exp_avg_sq", "step")
    assert tensors.keys() == {f"{kind}.{name}" for kind in kinds for name in trained}
    packs = [finished / "vision.safetensors", finished / "speech.safetensors"]
    state = setting.load(packs, dtype=torch.bfloat16).model.state_dict()
    assert all(torch.equal(tensors[f"master.{name}"].bfloat16(), state[name]) for name in trained)


@pytest.mark.parametrize("stage", [contrast(), listen()], ids=lambda stage: stage.name)
def test_a_checkpoint_also_holds_what_an_objective_learns(setting: Setting, tmp_path: Path, stage: Stage) -> None:
    setting.train(replace(stage, steps=1), tmp_path / "run")
    tensors, _ = load_training(list_checkpoints(tmp_path / "run")[-1])
    masters = {name.removeprefix("master.") for name in tensors if name.startswith("master.")}
    own = {name for name in masters if name.startswith(f"objective.{stage.sources[0].dataset}.")}
    assert own
    assert masters - own == select_trained(setting.load().model, stage.trains).keys()
    assert {name.partition(".")[2] for name in tensors} == masters


def test_training_leaves_the_files_that_it_began_with_alone(setting: Setting, tmp_path: Path) -> None:
    files = [path for path in (*setting.packs, *setting.base.rglob("*"), *setting.data.rglob("*")) if path.is_file()]
    before = [path.read_bytes() for path in files]
    setting.train(align(), tmp_path / "run")
    assert [path.read_bytes() for path in files] == before


def test_packs_are_written_for_the_modalities_that_trained(setting: Setting, finished: Path, tmp_path: Path) -> None:
    assert {path.name for path in finished.glob("*.safetensors")} == {"vision.safetensors", "speech.safetensors"}
    assert setting.train(align(), tmp_path / "run").packs.keys() == {"vision"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packs_have_the_type_of_the_base_whatever_the_model_computes_in(
    setting: Setting, tmp_path: Path, dtype: torch.dtype
) -> None:
    run = tmp_path / "run"
    pack = setting.train(align(), run, dtype=dtype).packs["vision"]
    assert {tensor.dtype for tensor in read_pack(pack).tensors.values()} == {torch.bfloat16}
    assert json.loads((list_checkpoints(run)[-1] / "state.json").read_text())["identity"]["dtype"] == str(dtype)[6:]


def test_the_same_stage_gives_the_same_bytes(setting: Setting, tmp_path: Path) -> None:
    first, second = (setting.train(align(), tmp_path / name).packs["vision"] for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    other = setting.train(replace(align(), seed=1), tmp_path / "other").packs["vision"]
    assert other.read_bytes() != first.read_bytes()


def test_a_pack_tells_all_stages_that_it_went_through(setting: Setting, finished: Path, tmp_path: Path) -> None:
    later = replace(setting, packs=(finished / "vision.safetensors", finished / "speech.safetensors"))
    stages = read_pack(later.train(align(), tmp_path / "run").packs["vision"]).trained_on["stages"]
    assert [stage["stage"] for stage in stages] == ["mixed", "align"]
    assert stages[0]["sources"] == {"colours": ["made up (CC0-1.0)"], "tones": ["made up (CC0-1.0)"]}
    assert stages[0]["base"] == stages[1]["base"] == read_pack(later.packs[0]).base_digest


@pytest.mark.parametrize("stage", [contrast(), listen()], ids=lambda stage: stage.name)
def test_encoders_are_pretrained_by_objectives_of_their_own(setting: Setting, tmp_path: Path, stage: Stage) -> None:
    setting.train(stage, tmp_path / "run")
    changed = changed_tensors(setting, tmp_path / "run")
    assert changed
    assert all(belongs_to(name, stage.trains[0]) for name in changed)
    key = f"train/{stage.sources[0].dataset}/loss"
    reported = [report[key] for report in losses(tmp_path / "run") if key in report]
    assert reported[-1] < reported[0]


def test_a_copied_part_goes_into_its_pack_though_it_does_not_train(setting: Setting, tmp_path: Path) -> None:
    stage = replace(align(), copies={"speech.projectors.vision": "speech.projectors.speech"})
    packs = setting.train(stage, tmp_path / "run").packs
    projectors = setting.load(packs.values()).model.get_submodule("speech.projectors").state_dict()
    assert torch.equal(projectors["vision.up.weight"], projectors["speech.up.weight"])


def test_a_row_with_two_examples_is_two_rows_with_one(calm_float32: Setting, tmp_path: Path) -> None:
    length = 40  # all examples of `colours` have 30 to 40 tokens
    one = replace(align(), trains=("vision.projector", "vision.adapter"), rows_per_step=1, tokens_per_row=2 * length)
    two = replace(one, rows_per_step=2, tokens_per_row=length)
    packs = [calm_float32.train(stage, tmp_path / name).packs["vision"] for name, stage in (("one", one), ("two", two))]
    for ours, theirs in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    first, second = (calm_float32.load([pack]).model.state_dict() for pack in packs)
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=2e-5, rtol=1e-4, msg=name)


def test_a_step_is_the_mean_over_its_targets_however_many_they_are(calm_float32: Setting, tmp_path: Path) -> None:
    """Of records that are all the same, any number has one loss and one gradient."""
    write_shards(colours(1, "train"), tmp_path / "data" / "colours")
    alike = replace(calm_float32, data=tmp_path / "data")
    reports = []
    for rows in (1, 3):
        alike.train(replace(align(), steps=1, rows_per_step=rows), tmp_path / str(rows))
        reports.append(read_metrics(tmp_path / str(rows))[0])
    for key in ("train/colours/loss", "gradient_norm"):
        assert reports[0][key] == pytest.approx(reports[1][key], rel=1e-4)


def test_dropout_acts_while_a_stage_trains(setting: Setting, calm: Setting, tmp_path: Path) -> None:
    first = []
    for name, start in (("noisy", setting), ("calm", calm)):
        start.train(replace(align(), steps=1), tmp_path / name)
        first.append(losses(tmp_path / name))
    noisy, calmed = first
    assert noisy[0]["train/colours/loss"] != calmed[0]["train/colours/loss"]


class Vandal(AnswerLoss):
    """Changes one frozen value while the loss is computed."""

    def forward(self, model: Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        with torch.no_grad():
            model.language.model.norm.weight[0] += 1.0
        return super().forward(model, examples)


def test_no_pack_is_written_when_a_frozen_weight_changed(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "build_objectives", lambda *_: {"colours": Vandal(recompute=False)})
    with pytest.raises(TrainingError, match="frozen weights changed"):
        setting.train(align(), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_what_happened_is_reported_for_every_step(finished: Path) -> None:
    reports = read_metrics(finished)
    training = [report for report in reports if "learning_rate" in report]
    assert [report["step"] for report in training] == list(range(1, 11))
    assert {"train/colours/loss", "train/colours/accuracy", "gradient_norm", "tokens_per_second", "skipped"} < set(
        training[0]
    )
    assert [report["learning_rate"] for report in training] == [mixed().learning_rate_at(step) for step in range(10)]
    validation = [report for report in reports if "valid/tones/loss" in report]
    assert [report["step"] for report in validation] == [4, 8, 10]


def test_a_base_without_modalities_is_refused(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="phi4 new-pack"):
        replace(setting, packs=()).train(align(), tmp_path / "run")


def test_a_quantised_base_is_refused(setting: Setting, tmp_path: Path) -> None:
    quantise(setting.base, tmp_path / "quantised", SCHEMES["4bit"])
    with pytest.raises(ConfigError, match="is quantised and has no gradients; train on the model it was made from"):
        replace(setting, base=tmp_path / "quantised").train(align(), tmp_path / "run")


@pytest.mark.parametrize("part", ["encoders", "adapters"])
def test_quantised_packs_are_refused(setting: Setting, tmp_path: Path, part: str) -> None:
    convert(setting.base, tmp_path / "joined", "released", setting.packs)
    quantise(tmp_path / "joined", tmp_path / "quantised", SCHEMES["8bit"], **{part: True})
    convert(tmp_path / "quantised", tmp_path / "split", "packs")
    packs = tuple(tmp_path / "split" / f"{name}.safetensors" for name in ("vision", "speech"))
    with pytest.raises(ConfigError, match="weights of vision and speech have 8 bits and no gradients"):
        replace(setting, packs=packs).train(align(), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_stage_for_another_model_is_refused_before_anything_is_computed(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vision\.projector.*speech\.adapter"):
        replace(setting, packs=setting.packs[1:]).train(replace(align(), sources=(Source("tones"),)), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_workers_change_no_byte_of_a_run_that_stops_and_goes_on(
    setting: Setting, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With augmentation; when the run stops, its worker has prepared draws that no step has seen."""
    stage, run = load_stage(f"{RECIPE}:mixed"), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_stopping", lambda trainer, _: trainer.step == 5)
        assert setting.train(stage, run, workers=1).step == 5
    resumed = setting.train(stage, run, workers=1, resume=True)
    assert {name: pack.read_bytes() for name, pack in resumed.packs.items()} == {
        name: (finished / f"{name}.safetensors").read_bytes() for name in ("vision", "speech")
    }
    assert losses(run) == losses(finished)


def test_workers_leave_the_callers_threads_alone(setting: Setting, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    try:
        setting.train(replace(align(), steps=1), tmp_path / "run", workers=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
