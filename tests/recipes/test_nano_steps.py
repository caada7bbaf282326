"""The steps of `make nano` around its stages: what they write is whole or not there, and the same when done again."""

import json
import runpy
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure
from safetensors import SafetensorError

from full_disk import no_file_above
from phi4.checkpoint.keymap import adapter_of
from phi4.checkpoint.nano import BASE_DIGEST, PACKS, pull_nano
from phi4.checkpoint.packs import read_pack, stages_of
from phi4.checkpoint.weights import load_model
from phi4.data.example import encode_example
from phi4.data.record import Record
from phi4.data.shards import ShardedRecords, write_shards
from phi4.errors import CheckpointError
from phi4.files import file_digest
from phi4.processing.messages import Message
from phi4.processing.processor import Processor
from phi4.train.objectives.answers import AnswerLoss
from phi4.train.objectives.guide import load_guide
from phi4.train.objectives.layout import lay_out
from recipes.nano import average, begin, evaluate, gather, guide, lesson, report, settle, sharpen, tell
from recipes.nano.augment_batch import augment_batch
from train.toys import colours, tones

ROOT = Path(__file__).parents[2]
VISION_PACK = next(path for path in PACKS if path.stem == "vision")
HELD_OUT = ROOT / "examples" / "held_out"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few records in place of nano's."""
    pictures = ("emoji", "emoji_further", "easy_vqa", "easy_vqa_named", "text_line")
    for name, records in (*((name, colours) for name in pictures), ("speech", tones)):
        write_shards(records(8, "train"), tmp_path / "data" / name)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("step", "options"),
    [
        ("guide", ("--data=nowhere", "--out=guide.safetensors")),
        ("gather", (f"--pack={VISION_PACK}", "--data=nowhere", "--out=deep.safetensors")),
        ("sharpen", (f"--pack={VISION_PACK}", "--data=nowhere", "--out=sharp.safetensors")),
        ("settle", (f"--pack={VISION_PACK}", "--data=nowhere", "--out=settled.safetensors")),
        ("tell", (f"--pack={VISION_PACK}", "--data=nowhere", "--out=told.safetensors")),
        ("report", ("--runs=nowhere", "--out=curves.svg")),
        ("samples", ("--data=nowhere", "--out=few")),
    ],
)
def test_a_mistake_ends_with_one_line_and_status_2(
    step: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [step, *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "recipes" / "nano" / f"{step}.py"), run_name="__main__")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: nowhere")


def test_the_packs_that_training_begins_with_have_the_same_bytes_again(data: Path, tmp_path: Path) -> None:
    packs = [tmp_path / "begin" / f"{modality}.safetensors" for modality in ("vision", "speech")]
    written = []
    for _ in range(2):
        begin.main(data, tmp_path / "begin")
        written.append([path.read_bytes() for path in packs])
    assert written[0] == written[1]
    assert [read_pack(path).base_digest for path in packs] == [BASE_DIGEST] * 2
    model = load_model(pull_nano(), packs=packs).model
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_a_guide_is_there_when_it_is_trained_and_measured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guide, "PICTURES_PER_STEP", 8)
    monkeypatch.setattr(guide, "MEASURED_PICTURES", 16)
    out = tmp_path / "guide" / "guide.safetensors"
    out.parent.mkdir()
    with no_file_above(20_000), pytest.raises((OSError, SafetensorError)):
        guide.main(data, out, steps=6)
    assert list(out.parent.iterdir()) == []
    guide.main(data, out, steps=6)
    assert bool((load_guide(out).deviation > 0).all())
    assert torch.any(load_guide(out).mean != 0)


def test_gathering_adds_layers_and_leaves_those_below_as_they_are(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VERSIONS", "DRAWINGS_PER_STEP", "CROPS_PER_STEP"):
        monkeypatch.setattr(gather, name, 2)
    out = tmp_path / "new" / "deep.safetensors"
    gather.main(data, VISION_PACK, out, steps=3)
    packs = [read_pack(path) for path in (VISION_PACK, out)]
    assert [len(stages_of(pack.trained_on)) for pack in packs] == [n := len(stages_of(packs[0].trained_on)), n + 1]
    models = [load_model(pull_nano(), packs=[pack.path]).model for pack in packs]
    before, after = (model.state_dict() for model in models)
    shallow, deep = (len(model.vision.encoder.layers) for model in models)
    assert deep == shallow + gather.NEW_LAYERS
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    last = f"vision.encoder.layers.{shallow - 1}."
    assert {name for name in changed if not name.startswith(("vision.projector.", last))} == set()
    moved = last.replace(str(shallow - 1), str(deep - 1))
    assert all(torch.equal(before[name], after[name.replace(last, moved)]) for name in before if last in name)


def test_layers_that_were_just_added_change_nothing() -> None:
    source = read_pack(VISION_PACK)
    shallow = load_model(pull_nano(), torch.float32, packs=[VISION_PACK])
    deep = gather.multimodal(gather.deepen(source, shallow))
    crops = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 8, 8, dtype=torch.bool)
    with torch.inference_mode():
        expected = gather.multimodal(shallow).vision.encoder(crops, mask)
        gather.begin(gather.new_layers(deep), expected)
        assert torch.equal(deep.vision.encoder(crops, mask), expected)


def test_sharpening_trains_all_that_the_language_model_gets_something_of_and_nothing_else(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DRAWINGS_PER_STEP", "CROPS_PER_STEP"):
        monkeypatch.setattr(sharpen, name, 2)
    out = tmp_path / "new" / "sharp.safetensors"
    sharpen.main(data, VISION_PACK, out, steps=3)
    before, after = (load_model(pull_nano(), packs=[path]).model for path in (VISION_PACK, out))
    weights = after.state_dict()
    changed = {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, weights[name])}
    last = f"vision.encoder.layers.{len(after.vision.encoder.layers) - 1}."
    assert {name for name in changed if not name.startswith(("vision.projector.", "vision.encoder."))} == set()
    assert {name for name in changed if name.startswith((last, "vision.encoder.head"))} == set()
    assert {"vision.encoder.patch_embedding.weight", "vision.encoder.layers.0.mlp.fc1.weight"} <= changed
    assert stages_of(read_pack(out).trained_on)[-1]["stage"] == "nano vision sharpen"


def test_telling_trains_the_adapter_and_nothing_that_sees(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tell, "DRAWINGS_PER_STEP", 3)
    out = tmp_path / "new" / "told.safetensors"
    tell.main(data, VISION_PACK, out, steps=2)
    before, after = (load_model(pull_nano(), packs=[path]).model.state_dict() for path in (VISION_PACK, out))
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {name for name in changed if adapter_of(name) != "vision"} <= {"vision.row_separator", "vision.separator"}
    assert {adapter_of(name) for name in changed} >= {"vision"}
    assert stages_of(read_pack(out).trained_on)[-1]["stage"] == "nano vision tell"


def test_a_conversation_laid_out_by_hand_costs_what_the_same_record_does(data: Path) -> None:
    loaded = load_model(pull_nano(), torch.float32, packs=[VISION_PACK])
    model = gather.multimodal(loaded)
    processor = Processor.load(loaded.directory, loaded.config, loaded.preprocessor)
    ends = loaded.generation.eos_token_ids
    records = [
        replace(record, messages=(Message("system", ""), *record.messages))
        for record in ShardedRecords.open(data / "emoji").select("train")[:3]
    ]
    examples = [encode_example(record, processor, ends) for record in records]
    about = [tell.converse(replace(record, messages=record.messages[1:]), loaded, processor) for record in records]
    with torch.inference_mode():
        rows = [model.encode(example.inputs.media[0], "vision") for example in examples]
        by_hand = tell.ask(model, lay_out(model, []), about, rows)
        expected = AnswerLoss(recompute=False)(model, examples)
    assert len(by_hand) == sum(one.answered for one in about)
    torch.testing.assert_close(-by_hand.sum(), expected.total)


def test_the_mean_of_packs_lies_between_them_and_tells_what_each_went_through(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tell, "DRAWINGS_PER_STEP", 2)
    told, again, out = (tmp_path / f"{name}.safetensors" for name in ("told", "again", "new/mean"))
    tell.main(data, VISION_PACK, told, steps=2)
    tell.main(data, VISION_PACK, again, steps=2, seed=1)
    assert file_digest(told) != file_digest(again)
    average.main([told, again], out)
    paths = (told, again, out)
    states = [load_model(pull_nano(), torch.float32, packs=[path]).model.state_dict() for path in paths]
    for first, second, mean in zip(*(state.values() for state in states), strict=True):
        assert torch.equal(mean, ((first + second) / 2).bfloat16().float() if not torch.equal(first, second) else first)
    before, *both, mean = (stages_of(read_pack(path).trained_on) for path in (VISION_PACK, told, again, out))
    assert mean == before + [own[-1] for own in both]
    with pytest.raises(CheckpointError, match="have no mean"):
        average.main([VISION_PACK, *(path for path in PACKS if path.stem == "speech")], out)


def test_rows_that_settle_lie_nearer_to_those_of_their_name_than_rows_that_were_only_sharpened(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("DRAWINGS_PER_STEP", 8), ("CROPS_PER_STEP", 2), ("WARMUP_STEPS", 1)):
        monkeypatch.setattr(sharpen, name, value)
    named = ShardedRecords.open(data / "emoji").select("train")
    crops = torch.cat([gather.picture_of(record).crops[:1] for record in named])
    answers = [record.answer for record in named]
    names = torch.tensor([sorted(set(answers)).index(answer) for answer in answers])
    before = gather.multimodal(load_model(pull_nano(), torch.float32, packs=[VISION_PACK]))
    places = lesson.mean_places(before, crops, names)
    distances = []
    for step in (settle, sharpen):
        out = tmp_path / step.__name__ / "vision.safetensors"
        step.main(data, VISION_PACK, out, steps=8)
        assert stages_of(read_pack(out).trained_on)[-1]["stage"] == step.__name__.replace(
            "recipes.nano.", "nano vision "
        )
        model = gather.multimodal(load_model(pull_nano(), torch.float32, packs=[out]))
        with torch.inference_mode():
            distances.append(float(places.distance(lesson.see(model, crops), names)))
    assert distances[0] < 0.8 * distances[1], distances


def test_pictures_that_are_changed_together_stay_pictures_and_are_changed_apart() -> None:
    torch.manual_seed(0)
    picture = torch.ones(3, 48, 48)
    picture[:, 12:36, 20:28] = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    changed = augment_batch(picture.expand(64, 3, 48, 48))
    assert changed.shape == (64, 3, 48, 48)
    assert changed.isfinite().all()
    assert 0.0 <= changed.min() < changed.max() <= 1.0
    assert len({tuple(one.flatten().tolist()) for one in changed}) == 64
    # A red bar on a light ground is still that, in most of them.
    red = changed[:, 0] - changed[:, 1:].mean(dim=1)
    assert (red[:, 20:28, 20:28].mean(dim=(1, 2)) > red[:, :4].mean(dim=(1, 2)) + 0.1).float().mean() > 0.7


def test_curves_end_with_the_last_line_that_is_whole(tmp_path: Path) -> None:
    lines = ['{"step": 1, "train/a/loss": 0.5}\n', '{"step": 2, "train/a/loss": 0.25}\n', '{"step": 3, "train/a/lo']
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    panel = Figure().subplots()
    report.draw_run(panel, tmp_path / "metrics.jsonl")
    (curve,) = panel.lines
    assert list(curve.get_xdata()) == [1, 2]


def perfect(_: object, records: Sequence[Record], max_tokens: int) -> Iterator[tuple[int, str]]:
    return ((place, record.answer) for place, record in enumerate(records))


@pytest.fixture
def pack(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Packs of a model that need not be loaded, since it gives every answer as it should be."""
    loaded = SimpleNamespace(config=SimpleNamespace(adapters={"vision": None, "speech": None}))
    monkeypatch.setattr(evaluate.Assistant, "load", lambda *_, **__: SimpleNamespace(loaded=loaded))
    monkeypatch.setattr(evaluate, "answer_records", perfect)
    return list(PACKS)


def test_every_task_is_measured_against_its_target(pack: list[Path], tmp_path: Path) -> None:
    evaluate.main(pack, HELD_OUT, tmp_path / "new" / "results.json")
    results = json.loads((tmp_path / "new" / "results.json").read_text())
    assert results.keys() == evaluate.MEASURES.keys()
    for task, result in results.items():
        assert result["value"] == (0.0 if evaluate.MEASURES[task].lower_is_better else 1.0)
        assert result["met"] == (None if result["target"] is None else True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]


def tasks_answered(
    monkeypatch: pytest.MonkeyPatch, packs: list[Path], data: Path, out: Path, limit: int | None = None, stop: str = ""
) -> list[str]:
    """Evaluates, with answers as they should be, until a task at which it is stopped; returns those before it."""
    answered: list[str] = []

    def answer(assistant: object, records: Sequence[Record], max_tokens: int) -> Iterator[tuple[int, str]]:
        if records[0].task == stop:
            raise KeyboardInterrupt
        answered.append(records[0].task)
        return perfect(assistant, records, max_tokens)

    monkeypatch.setattr(evaluate, "answer_records", answer)
    with suppress(KeyboardInterrupt):
        evaluate.main(packs, data, out, limit)
    return answered


def test_results_are_there_when_all_tasks_are_done(
    pack: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "results.json", tmp_path / "whole.json"
    assert tasks_answered(monkeypatch, pack, HELD_OUT, out, stop="emoji") == ["asterisk", "easy_vqa"]
    (so_far,) = tmp_path.iterdir()
    assert so_far.name == "results.json.partial"
    assert json.loads(so_far.read_text()).keys() == {"asterisk", "easy_vqa"}
    # Stopped once more, before anything else was finished.
    assert tasks_answered(monkeypatch, pack, HELD_OUT, out, stop="emoji") == []
    remaining = tasks_answered(monkeypatch, pack, HELD_OUT, out)
    assert sorted(remaining) == sorted(evaluate.MEASURES.keys() - {"asterisk", "easy_vqa"})
    evaluate.main(pack, HELD_OUT, whole)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == [out, whole]


@pytest.mark.parametrize("other", ["packs", "records", "data"])
def test_what_other_packs_records_or_data_gave_is_answered_again(
    other: str, pack: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, data = tmp_path / "results.json", tmp_path / "data"
    shutil.copytree(HELD_OUT, data)
    before = tasks_answered(monkeypatch, pack, data, out, stop="emoji")
    if other == "packs":
        pack[0] = tmp_path / pack[0].name
        pack[0].write_bytes(b"other weights")
    if other == "data":
        for name in before:
            records = list(ShardedRecords.open(data / name))
            shutil.rmtree(data / name)
            write_shards(reversed(records), data / name)
    again = tasks_answered(monkeypatch, pack, data, out, limit=1 if other == "records" else None)
    assert again[: len(before)] == before == ["asterisk", "easy_vqa"]
    assert again[len(before) :]
