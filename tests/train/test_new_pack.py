"""Packs that nothing trained yet do nothing yet."""

from pathlib import Path
from typing import Any

import pytest
import torch

from data.samples import record as text_record
from phi4.checkpoint.fragments import own_config
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.new_pack import write_new_pack
from phi4.checkpoint.packs import read_pack
from phi4.checkpoint.presets import load_preset
from phi4.checkpoint.weights import load_model
from phi4.data.record import Record
from phi4.engine.whole_pass import score
from phi4.inputs import ModelInputs
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.messages import Message
from phi4.processing.processor import Processor
from train.conftest import Setting
from train.toys import colours, tones


def write(setting: Setting, path: Path, modality: str, seed: int = 0, **options: Any) -> Path:
    """Writes a new pack with the sizes of the tiny preset."""
    preset = load_preset("tiny")
    fragment = own_config(preset.config.raw, modality)
    base = open_checkpoint(setting.base)
    write_new_pack(path, base, modality, fragment, preset.preprocessor, seed=seed, **options)
    return path


@pytest.fixture
def fresh(setting: Setting, tmp_path: Path) -> list[Path]:
    return [write(setting, tmp_path / f"{name}.safetensors", name) for name in ("vision", "speech")]


def prepare(setting: Setting, packs: list[Path], *messages: Message) -> ModelInputs:
    loaded = setting.load(packs)
    return Processor.load(loaded.directory, loaded.config, loaded.preprocessor).prepare(messages)


def test_text_has_the_bits_of_the_bare_base(setting: Setting, fresh: list[Path]) -> None:
    inputs = prepare(setting, fresh, *text_record("text").messages[:1])
    bare, loaded = load_model(setting.base).model, setting.load(fresh).model
    assert torch.equal(score(bare, [inputs])[0], score(loaded, [inputs])[0])


@pytest.mark.parametrize(("record", "modality"), [(colours(1, "train")[0], "vision"), (tones(1, "train")[0], "speech")])
def test_media_are_answered_by_the_base_alone(
    setting: Setting, fresh: list[Path], record: Record, modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B is zero: whether a conversation with a medium takes the adapter makes no difference."""
    inputs = prepare(setting, fresh, *record.messages[:1])
    model = setting.load(fresh).model
    assert isinstance(model, Phi4Multimodal)
    assert model.adapter_for(inputs.modalities) == modality
    (adapted,) = score(model, [inputs])
    # The encoder of speech is told the adapter, since its projector bears that name.
    monkeypatch.setattr(model, "encode", lambda medium, _: Phi4Multimodal.encode(model, medium, modality))
    monkeypatch.setattr(model, "adapter_for", lambda _: None)
    assert torch.equal(adapted, score(model, [inputs])[0])


@pytest.mark.parametrize("modality", ["vision", "speech"])
def test_a_seed_gives_the_same_bytes(setting: Setting, tmp_path: Path, modality: str) -> None:
    first, again = (write(setting, tmp_path / name, modality, seed=4).read_bytes() for name in ("first", "again"))
    assert first == again
    assert write(setting, tmp_path / "other", modality, seed=5).read_bytes() != first


def test_given_tensors_are_taken_over(setting: Setting, tmp_path: Path) -> None:
    given = {"speech.encoder.global_mean": torch.linspace(-1.0, 1.0, 80)}
    pack = write(setting, tmp_path / "speech.safetensors", "speech", given=given)
    state = setting.load([pack]).model.state_dict()
    assert torch.equal(state["speech.encoder.global_mean"], given["speech.encoder.global_mean"].bfloat16())


def test_a_new_pack_knows_its_base_and_that_no_stage_trained_it(setting: Setting, fresh: list[Path]) -> None:
    pack = read_pack(fresh[0])
    assert pack.base_digest == read_pack(setting.packs[0]).base_digest
    assert pack.trained_on == {"stages": []}


def test_signals_keep_their_size_through_the_encoders(setting: Setting, fresh: list[Path]) -> None:
    """What a first stage begins with must neither vanish nor explode."""
    model = setting.load(fresh, dtype=torch.float32).model
    assert isinstance(model, Phi4Multimodal)
    with torch.inference_mode():
        for record in (colours(1, "train")[0], tones(1, "train")[0]):
            (medium,) = prepare(setting, fresh, *record.messages[:1]).media
            features = model.encode(medium, medium.modality)
            assert 0.01 < float(features.std()) < 100
