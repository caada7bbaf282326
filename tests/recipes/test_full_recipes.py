"""The published sequence of stages: at full size as numbers, and on the tiny preset as it runs."""

import io
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from data.samples import png, wav
from phi4.assistant import Assistant
from phi4.checkpoint.convert import convert
from phi4.checkpoint.digest import base_digest
from phi4.checkpoint.fragments import own_config
from phi4.checkpoint.initialise import initialise
from phi4.checkpoint.keymap import adapter_of, empty_model
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.new_pack import write_new_pack
from phi4.checkpoint.packs import add_packs, read_pack
from phi4.checkpoint.presets import load_preset
from phi4.cli import main
from phi4.data.record import Record, Split
from phi4.data.shards import write_shards
from phi4.engine.sampling import Sampling
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.image import image_to_crops
from phi4.processing.messages import Image, Message, user_message
from phi4.processing.settings import ImageSettings
from phi4.train.parts import belongs_to, copy_parts, select_trained
from phi4.train.recipe import load_stage, load_stages
from phi4.train.run import train_stage
from phi4.train.stage import Stage

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"

# In the order of training.
SEQUENCE = (
    "vision.py:align",
    "vision.py:joint",
    "vision.py:tune",
    "vision.py:many_frames",
    "speech.py:align",
    "speech.py:instruct",
    "vision_speech.py:joint",
)

# Facts sheet 6.4, 5.5.
VISION_PROJECTOR = 12_984_576
VISION_ENCODER = 428_565_440
VISION_LORA = 369_098_752
SPEECH_PROJECTOR = 12_589_056
SPEECH_ENCODER = 441_238_144
SPEECH_LORA = 461_373_440

# Facts sheet 8.2 to 8.4.
TRAINED_VALUES = {
    "vision.py:align": VISION_PROJECTOR,
    "vision.py:joint": VISION_PROJECTOR + VISION_ENCODER,
    "vision.py:tune": VISION_PROJECTOR + VISION_ENCODER + VISION_LORA,
    "vision.py:many_frames": VISION_PROJECTOR + VISION_LORA,
    "speech.py:align": SPEECH_PROJECTOR + SPEECH_ENCODER,
    "speech.py:instruct": SPEECH_PROJECTOR + SPEECH_LORA,
    "vision_speech.py:joint": VISION_PROJECTOR + VISION_ENCODER + VISION_LORA,
}

# Behind the tower's feature layer nothing runs (facts sheet 4.1; tiny has 3 layers). Mel statistics are no parameters.
NEVER_TRAINED = (
    "vision.encoder.layers.2",
    "vision.encoder.post_layernorm",
    "vision.encoder.head",
    "speech.encoder.global_mean",
    "speech.encoder.global_invstd",
)


def full_stage(name: str) -> Stage:
    return load_stage(str(RECIPES / name))


@pytest.fixture(scope="module")
def full_size() -> Phi4Multimodal:
    """The released sizes without memory."""
    model = empty_model(load_preset("multimodal").config)
    assert isinstance(model, Phi4Multimodal)
    return model


@pytest.mark.parametrize("name", SEQUENCE)
def test_a_stage_trains_the_published_parts(full_size: Phi4Multimodal, name: str) -> None:
    stage = full_stage(name)
    trained = select_trained(full_size, stage.trains)
    assert sum(parameter.numel() for parameter in trained.values()) == TRAINED_VALUES[name]
    assert not copy_parts(full_size, stage.copies) & trained.keys()


def test_the_adapters_have_the_published_sizes(full_size: Phi4Multimodal) -> None:
    vision, speech = (full_size.config.adapters[name] for name in ("vision", "speech"))
    assert (vision.rank, vision.alpha, vision.dropout) == (256, 512, 0.0)
    assert (speech.rank, speech.alpha, speech.dropout) == (320, 640, 0.01)


@pytest.mark.parametrize("name", SEQUENCE)
def test_a_stage_has_the_published_optimiser(name: str) -> None:
    """Facts sheet 8.7."""
    stage = full_stage(name)
    assert (stage.beta1, stage.beta2, stage.epsilon, stage.weight_decay) == (0.9, 0.95, 1e-7, 0.01)
    assert (stage.max_grad_norm, stage.warmup_steps, stage.recompute) == (1.0, 50, True)


def test_the_speech_stages_have_the_published_rates_and_steps() -> None:
    """Facts sheet 8.3."""
    align, instruct = full_stage("speech.py:align"), full_stage("speech.py:instruct")
    assert (align.learning_rate, align.steps) == (4e-5, 50_000)
    assert (instruct.learning_rate, instruct.steps) == (1e-4, 50_000)


@pytest.mark.parametrize(("names", "tokens"), [(SEQUENCE[:2], 0.5e12), (SEQUENCE[2:4], 0.3e12)])
def test_the_vision_stages_see_the_published_number_of_tokens(names: tuple[str, ...], tokens: float) -> None:
    """Facts sheet 8.2."""
    stages = [full_stage(name) for name in names]
    total = sum(stage.steps * stage.rows_per_step * stage.tokens_per_row for stage in stages)
    assert total == pytest.approx(tokens, rel=1e-3)


@pytest.mark.parametrize("size_px", [(1920, 1080), (1792, 1793), (3000, 2000), (5000, 700), (300, 9000), (60, 40)])
def test_pre_training_cuts_pictures_into_at_most_16_crops(size_px: tuple[int, int]) -> None:
    augment = full_stage("vision.py:align").augment
    assert augment is not None
    picture = PIL.Image.effect_noise(size_px, 64).convert("RGB")
    before = Record("one", (user_message("?", [picture]), Message("assistant", "!")), "made up", "CC0-1.0", "train", "")
    (limited,) = (p for p in augment(before, np.random.default_rng(0)).messages[0].parts if isinstance(p, Image))
    assert isinstance(limited.source, PIL.Image.Image)
    found = image_to_crops(limited.source, ImageSettings())
    expected = image_to_crops(picture, ImageSettings(max_crops=16))
    assert (found.columns, found.rows) == (expected.columns, expected.rows)
    assert found.columns * found.rows <= 16
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.crops, expected.crops)


def run_command(*arguments: str) -> tuple[int, str]:
    """Runs a command in this process; returns its status and what it printed."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output), pytest.raises(SystemExit) as exit_info:
        main(arguments)
    return int(exit_info.value.code or 0), output.getvalue()


def test_the_table_names_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    status, table = run_command("train", "--list")
    assert status == 0
    assert all(f"recipes/{name} " in table for name in SEQUENCE)


def test_the_recipes_have_no_other_stages() -> None:
    files = ("vision.py", "speech.py", "vision_speech.py")
    assert tuple(f"{file}:{name}" for file in files for name in load_stages(RECIPES / file)) == SEQUENCE


# The sequence on the tiny preset.


# Pictures and sounds of a record, by data set; another has one of its recipe's modality.
CONTENT = {
    "many_picture_instructions": (2, 0),
    "film_instructions": (3, 0),
    "spoken_picture_questions": (1, 1),
    "picture_instructions": (1, 0),
}


def write_data(stage: Stage, directory: Path) -> None:
    """Writes a few records of noise for each source of a stage."""
    usual = (0, 1) if any(part.startswith("speech") for part in stage.trains) else (1, 0)
    for source in stage.sources:
        num_pictures, num_sounds = CONTENT.get(source.dataset, usual)
        splits: tuple[Split, ...] = ("train", "train", "train", "valid")
        records = []
        for number, split in enumerate(splits):
            pictures = [png(10 * number + index) for index in range(num_pictures)]
            question = user_message("What?", pictures, [wav(number)] * num_sounds)
            messages = (question, Message("assistant", f"It is {number}."))
            records.append(Record(f"{number}", messages, "made up", "CC0-1.0", split, source.dataset))
        write_shards(records, directory / source.dataset)


@dataclass(frozen=True)
class Result:
    """One stage that ran.

    Attributes:
        name: of the stage.
        stage: the recipe.
        before: packs that it began with, by modality.
        after: the same when it was done.
        digest: of the base when it was done.
    """

    name: str
    stage: Stage
    before: Mapping[str, Path]
    after: Mapping[str, Path]
    digest: str


def new_pack(modality: str, path: Path, base: Path, *options: str) -> tuple[int, str]:
    return run_command("new-pack", modality, str(path), "--model", str(base), "--like", "tiny", *options)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language model of a tiny checkpoint in fp32, in which the smallest update shows; packs lie beside it."""
    directory = tmp_path_factory.mktemp("tiny")
    initialise("tiny", directory / "whole", dtype=torch.float32)
    convert(directory / "whole", directory / "split", "packs")
    return directory / "split" / "base"


@pytest.fixture(scope="module")
def results(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """The published sequence, from random packs, with two small steps for each stage."""
    directory = tmp_path_factory.mktemp("sequence")
    packs: dict[str, Path] = {}
    results = []
    for name in SEQUENCE:
        if name.endswith(".py:align"):
            modality = name.partition(".")[0]
            packs[modality] = directory / f"new-{modality}.safetensors"
            assert new_pack(modality, packs[modality], base)[0] == 0
        stage = replace(full_stage(name), steps=2, rows_per_step=2, tokens_per_row=256, valid_records=1)
        run = directory / name.replace(":", "-")
        write_data(stage, run / "data")
        # The joint stage alone needs both.
        before = packs if name == SEQUENCE[-1] else {modality: packs[modality]}
        written = train_stage(stage, base, list(before.values()), run / "data", run / "run").packs
        after = {**before, **written}
        digest = base_digest(add_packs(open_checkpoint(base), list(after.values())).tensors)
        results.append(Result(name, stage, before, after, digest))
        packs = {**packs, **written}
    return results


def tensors_of(base: Path, packs: Iterable[Path]) -> dict[str, torch.Tensor]:
    return {n: t.read() for n, t in add_packs(open_checkpoint(base), list(packs)).tensors.items()}


def is_in(name: str, parts: Iterable[str]) -> bool:
    return any(belongs_to(name, part) for part in parts)


def test_every_stage_leaves_the_base_as_it_is(base: Path, results: list[Result]) -> None:
    whole = base_digest(open_checkpoint(base.parent.parent / "whole").tensors)
    assert [result.digest for result in results] == [whole] * len(SEQUENCE)
    packs = [path for result in results for path in result.after.values()]
    assert {read_pack(path).base_digest for path in packs} == {whole}


def test_what_a_stage_names_changes_and_nothing_else(base: Path, results: list[Result]) -> None:
    for result in results:
        before, after = (tensors_of(base, packs.values()) for packs in (result.before, result.after))
        assert before.keys() == after.keys()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        named = {name for name in before if is_in(name, (*result.stage.trains, *result.stage.copies))}
        assert changed == {name for name in named if not is_in(name, NEVER_TRAINED)}, result.name


def test_a_stage_writes_the_packs_that_it_changed(results: list[Result]) -> None:
    written = [{name for name in result.after if result.after[name] != result.before[name]} for result in results]
    assert written == [{"vision"}] * 4 + [{"speech"}] * 2 + [{"vision", "speech"}]


def test_a_pack_tells_all_its_stages(results: list[Result]) -> None:
    stages = {name: full_stage(name).name for name in SEQUENCE}
    for result in results:
        done = SEQUENCE[: SEQUENCE.index(result.name) + 1]
        for modality, path in result.after.items():
            told = [entry["stage"] for entry in read_pack(path).trained_on["stages"]]
            own = [stages[name] for name in done if modality in name.partition(".")[0]]
            # Packs that were trained together tell both histories.
            assert [stage for stage in told if stage in own] == own


def test_the_second_speech_projector_ends_as_a_copy_of_the_first(base: Path, results: list[Result]) -> None:
    tensors = tensors_of(base, results[-1].after.values())
    copies = [name for name in tensors if name.startswith("speech.projectors.vision.")]
    assert len(copies) == 4
    for name in copies:
        assert torch.equal(tensors[name], tensors[name.replace("projectors.vision", "projectors.speech")])


def test_both_packs_answer_about_a_picture_and_a_sound(base: Path, results: list[Result]) -> None:
    assistant = Assistant.load(base, device="cpu", packs=list(results[-1].after.values()))
    answer = assistant.ask("What?", images=[png(1)], sounds=[wav(1)], sampling=Sampling(max_tokens=3))
    assert answer.adapter == "vision"
    assert [modality for modality, _ in answer.media] == ["vision", "speech"]


# The packs that the sequence begins with.


def test_a_new_pack_does_nothing_yet_and_depends_on_its_seed(base: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert new_pack("vision", tmp_path / name, base, "--seed", seed)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
    tensors = tensors_of(base, [tmp_path / "a"])
    halves = [tensor for name, tensor in tensors.items() if adapter_of(name) and ".lora_B." in name]
    assert len(halves) == 8
    assert not any(tensor.any() for tensor in halves)


@pytest.mark.parametrize("modality", ["vision", "speech"])
@pytest.mark.parametrize("from_pack", [True, False])
def test_a_new_pack_takes_over_an_encoder(base: Path, tmp_path: Path, modality: str, from_pack: bool) -> None:
    split = base.parent
    source = split / f"{modality}.safetensors" if from_pack else split.parent / "whole"
    assert new_pack(modality, tmp_path / "new", base, "--encoder-from", str(source))[0] == 0
    given, new = (tensors_of(base, [path]) for path in (split / f"{modality}.safetensors", tmp_path / "new"))
    own = {name for name in given if name.startswith(f"{modality}.encoder.")}
    assert own
    assert all(torch.equal(given[name], new[name]) for name in own)
    projector = next(name for name in given if name.endswith("up.weight"))
    assert not torch.equal(given[projector], new[projector])


def test_an_encoder_with_other_heads_is_refused_though_its_shapes_fit(base: Path, tmp_path: Path) -> None:
    preset = load_preset("tiny")
    fragment = own_config(preset.config.raw, "vision")
    heads = {**fragment, "img_processor": {**fragment["img_processor"], "num_attention_heads": 1}}
    write_new_pack(tmp_path / "one-head", open_checkpoint(base), "vision", heads, preset.preprocessor)
    status, message = new_pack("vision", tmp_path / "new", base, "--encoder-from", str(tmp_path / "one-head"))
    assert status == 2
    assert "has 1 attention heads, not 2" in message


def test_a_new_pack_that_cannot_be_is_refused(base: Path, tmp_path: Path, tiny_directory: Path) -> None:
    path = tmp_path / "new"

    def refusal(modality: str, *options: str) -> str:
        status, message = run_command("new-pack", modality, str(path), *options)
        assert status == 2
        return message

    there = ["--model", str(base)]
    other = base.parent / "speech.safetensors"
    assert "has its modalities inside" in refusal("vision", "--model", str(tiny_directory), "--like", "tiny")
    assert "no added token 200010" in refusal("vision", *there, "--like", "multimodal")
    assert "no vision encoder" in refusal("vision", *there, "--like", "tiny", "--encoder-from", str(other))
    assert "--like" in refusal("vision", *there, "--like", "mini")
    assert not path.exists()
    path.write_text("mine")
    assert "exists" in refusal("vision", *there, "--like", "tiny")
    assert path.read_text() == "mine"
