"""The stages of the language model: as published numbers, and on the tiny preset from text to answers."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from data.samples import record
from phi4.assistant import Assistant
from phi4.checkpoint.convert import convert
from phi4.checkpoint.initialise import initialise
from phi4.checkpoint.training import list_checkpoints
from phi4.checkpoint.weights import load_model
from phi4.data.record import Record, Split
from phi4.data.shards import ShardedRecords, write_shards
from phi4.engine.sampling import Sampling
from phi4.engine.whole_pass import score
from phi4.errors import CheckpointError, ConfigError, TrainingError
from phi4.inputs import ModelInputs
from phi4.json_file import read_json
from phi4.processing.messages import Message
from phi4.processing.processor import Processor
from phi4.train.recipe import load_stage
from phi4.train.run import train_stage
from phi4.train.stage import Ctc, Source, Stage
from train.conftest import losses, read_metrics

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "language.py"
SEQUENCE = ("pretrain", "sft", "dpo")
SPLITS: tuple[Split, ...] = ("train", "train", "train", "train", "valid")


def small(name: str) -> Stage:
    """The stage of the recipe with other sizes."""
    return replace(
        load_stage(f"{RECIPE}:{name}"),
        steps=4,
        rows_per_step=2,
        tokens_per_row=128,
        warmup_steps=1,
        learning_rate=3e-3,
        save_every=2,
    )


def records(name: str) -> list[Record]:
    match name:
        case "pretrain":
            texts = [f"Tide {number} comes in. " * (1 + number * 3) for number in range(5)]
            return [
                record(str(n), Message("user", ""), Message("assistant", text), split=split)
                for n, (text, split) in enumerate(zip(texts, SPLITS, strict=True))
            ]
        case "sft":
            return [record(str(n), split=split) for n, split in enumerate(SPLITS)]
        case _:
            return [record(str(n), split=split, rejected=f"I cannot say {n}.") for n, split in enumerate(SPLITS)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny language model, in fp32, and a data set for each stage."""
    folder = tmp_path_factory.mktemp("language")
    initialise("tiny", folder / "whole", dtype=torch.float32)
    convert(folder / "whole", folder / "split", "packs")
    for name in SEQUENCE:
        write_shards(records(name), folder / "data" / small(name).sources[0].dataset)
    return folder


@pytest.fixture(scope="module")
def runs(start: Path) -> dict[str, Path]:
    """The run of each stage; each begins with the model of the one before."""
    model, folders = start / "split" / "base", {}
    for name in SEQUENCE:
        folders[name] = start / name
        written = train_stage(small(name), model, (), start / "data", folders[name]).model
        assert written is not None
        model = written
    return folders


def test_pre_training_sees_the_published_number_of_tokens() -> None:
    """Facts sheet 8.1."""
    stage = load_stage(f"{RECIPE}:pretrain")
    assert stage.steps * stage.rows_per_step * stage.tokens_per_row == pytest.approx(5e12, rel=1e-3)


def test_every_weight_learns_and_what_comes_out_answers(start: Path, runs: dict[str, Path]) -> None:
    before = load_model(start / "split" / "base").model.state_dict()
    for name in SEQUENCE:
        after = load_model(runs[name] / "model").model.state_dict()
        assert after.keys() == before.keys()
        assert not [key for key, tensor in after.items() if torch.equal(tensor, before[key])], name
        before = after
    answer = Assistant.load(runs["dpo"] / "model", device="cpu").ask("Which?", sampling=Sampling(max_tokens=3))
    assert answer.token_ids
    history = read_json(runs["dpo"] / "model" / "training.json")
    assert [entry["stage"] for entry in history["stages"]] == [small(name).name for name in SEQUENCE]


def test_the_reported_loss_is_plain_cross_entropy_of_every_token(start: Path, runs: dict[str, Path]) -> None:
    """The last validation ran on the weights that were written; its one text is longer than a row."""
    loaded = load_model(runs["pretrain"] / "model")
    tokenizer = Processor.load(loaded.directory, loaded.config, loaded.preprocessor).tokenizer
    text = ShardedRecords.open(start / "data" / "text").select("valid")[0].answer
    end = loaded.config.raw["eos_token_id"]
    token_ids = [end, *tokenizer.encode(text, allow_special=False), end]
    total = 0.0
    for first in range(0, len(token_ids) - 1, 127):
        run = token_ids[first : first + 128]
        (logits,) = score(loaded.model, [ModelInputs(tuple(run))])
        total += float(functional.cross_entropy(logits[:-1], torch.tensor(run[1:]), reduction="sum"))
    assert len(token_ids) > 128
    assert read_metrics(runs["pretrain"])[-1]["valid/text/loss"] == pytest.approx(
        total / (len(token_ids) - 1), rel=1e-5
    )


def test_preferences_report_their_share_and_margin(runs: dict[str, Path]) -> None:
    reports = [report for report in read_metrics(runs["dpo"]) if "learning_rate" in report]
    assert reports[0]["train/preferences/loss"] == pytest.approx(0.6931, abs=1e-3)
    assert reports[-1]["train/preferences/margin"] > reports[0]["train/preferences/margin"]
    assert reports[-1]["train/preferences/accuracy"] == 1.0


@pytest.mark.parametrize("name", SEQUENCE)
def test_a_run_that_was_killed_and_resumed_is_one_that_never_stopped(
    start: Path, runs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    before = {"pretrain": start / "split" / "base", "sft": runs["pretrain"] / "model", "dpo": runs["sft"] / "model"}
    run = tmp_path / "run"
    shutil.copytree(runs[name], run)
    shutil.rmtree(run / "model")
    shutil.rmtree(list_checkpoints(run)[-1])
    (run / ".model.partial-0000").mkdir()  # where it was when it was killed
    train_stage(small(name), before[name], (), start / "data", run, resume=True)
    for file in sorted((runs[name] / "model").iterdir()):
        assert (run / "model" / file.name).read_bytes() == file.read_bytes()
    assert losses(run) == losses(runs[name])
    assert read_metrics(run)[-2]["tokens"] == read_metrics(runs[name])[-2]["tokens"]


def test_a_model_is_written_once_and_never_over_another(start: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    base, run = start / "split" / "base", tmp_path / "run"
    shutil.copytree(runs["pretrain"], run)
    assert train_stage(small("pretrain"), base, (), start / "data", run, resume=True).model == run / "model"
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(TrainingError, match="holds a run already"):
        train_stage(small("pretrain"), base, (), start / "data", run)
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        train_stage(replace(small("pretrain"), steps=1), base, (), start / "data", run, resume=True)


def test_the_command_says_where_the_model_is(start: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_text(
        "from dataclasses import replace\nfrom phi4.train.stage import Stage\nfrom recipes import language\n\n\n"
        "def sft() -> Stage:\n    return replace(language.sft(), steps=1, rows_per_step=1, tokens_per_row=64)\n"
    )
    command = [sys.executable, "-m", "phi4", "train", f"{tmp_path}/recipe.py:sft", "--model", start / "split" / "base"]
    command += ["--data", start / "data", "--out", tmp_path / "run"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "run" / "model")]


def test_a_model_with_modalities_and_texts_beyond_its_context_are_refused(start: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--to packs"):
        train_stage(small("sft"), start / "whole", (), start / "data", tmp_path / "run")
    stage = replace(small("pretrain"), tokens_per_row=200_000)
    with pytest.raises(ConfigError, match="131072 at most in this model's context"):
        train_stage(stage, start / "split" / "base", (), start / "data", tmp_path / "run")


def test_an_objective_of_an_encoder_needs_one(start: Path, tmp_path: Path) -> None:

    stage = replace(small("sft"), sources=(Source("conversations", 1, Ctc("speech", 20)),))
    with pytest.raises(ConfigError, match="is of an encoder, and this model has none"):
        train_stage(stage, start / "split" / "base", (), start / "data", tmp_path / "run")
