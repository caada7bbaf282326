from pathlib import Path

import pytest
import torch

from phi4.checkpoint.fragments import own_config
from phi4.checkpoint.keymap import modality_of
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.new_pack import write_new_pack
from phi4.checkpoint.presets import load_preset
from phi4.checkpoint.weights import LoadedModel
from phi4.errors import ConfigError
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.parts import copy_parts, digest_frozen, select_trained
from train.conftest import Setting


@pytest.fixture
def model(setting: Setting) -> Phi4Multimodal:
    loaded: LoadedModel = setting.load()
    assert isinstance(loaded.model, Phi4Multimodal)
    return loaded.model


def test_only_the_named_parts_get_gradients(model: Phi4Multimodal) -> None:
    trained = select_trained(model, ["vision.projector", "speech.adapter"])
    assert trained.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {modality_of(name) for name in trained} == {"vision", "speech"}
    assert all(name.startswith("vision.projector.") or ".speech.weight" in name for name in trained)


def test_a_later_stage_forgets_what_an_earlier_one_trained(model: Phi4Multimodal) -> None:
    select_trained(model, ["vision.encoder"])
    assert select_trained(model, ["vision.separator"]).keys() == {"vision.separator"}
    assert not model.vision.encoder.patch_embedding.weight.requires_grad


@pytest.mark.parametrize("part", ["vision.projecto", "vision.adapte", "hearing", "hearing.adapter", ""])
def test_an_unknown_part_is_refused_with_those_there_are(model: Phi4Multimodal, part: str) -> None:
    with pytest.raises(ConfigError, match=r"speech\.adapter, .*speech\.projectors, vision\.adapter, .*vision\.sep"):
        select_trained(model, [part])


@pytest.mark.parametrize(
    "part", ["language.model.norm", "language.model.layers.0.mlp.down_proj", "language.model.embed_tokens"]
)
def test_a_part_of_the_language_model_is_refused(model: Phi4Multimodal, part: str) -> None:
    with pytest.raises(ConfigError, match="language model is frozen"):
        select_trained(model, ["vision.projector", part])


def test_the_language_model_trains_as_a_whole_and_without_modalities(setting: Setting, model: Phi4Multimodal) -> None:
    with pytest.raises(ConfigError, match=r"has speech\.adapter, .*phi4 convert MODEL SPLIT --to packs"):
        select_trained(model, ["language"])
    bare = setting.load(packs=()).model
    assert select_trained(bare, ["language"]).keys() == bare.state_dict().keys()
    assert all(parameter.requires_grad for parameter in bare.parameters())


def test_one_layers_adapter_is_no_part_of_the_language_model(model: Phi4Multimodal) -> None:
    assert len(select_trained(model, ["language.model.layers.0.mlp.down_proj.lora_A.vision"])) == 1


def test_a_part_starts_as_a_copy_of_another(model: Phi4Multimodal) -> None:
    overwritten = copy_parts(model, {"speech.projectors.vision": "speech.projectors.speech"})
    assert overwritten == {
        f"speech.projectors.vision.{n}" for n in ("up.weight", "up.bias", "down.weight", "down.bias")
    }
    assert torch.equal(model.speech.projectors["vision"].up.weight, model.speech.projectors["speech"].up.weight)


def test_an_adapter_starts_as_a_copy_of_another_of_the_same_rank(setting: Setting, tmp_path: Path) -> None:
    preset = load_preset("tiny").config.raw
    packs = [tmp_path / "vision.safetensors", tmp_path / "speech.safetensors"]
    for seed, pack in enumerate(packs):
        fragment = own_config(preset, pack.stem)
        fragment[f"{pack.stem}_lora"] = {**fragment[f"{pack.stem}_lora"], "r": 4}
        write_new_pack(pack, open_checkpoint(setting.base), pack.stem, fragment, {}, seed=seed)
    model = setting.load(packs).model
    copied = copy_parts(model, {"speech.adapter": "vision.adapter"})
    parameters = dict(model.named_parameters())
    assert copied == {name for name in parameters if name.endswith(".speech.weight")}
    for name in copied:
        assert torch.equal(parameters[name], parameters[name.replace(".speech.", ".vision.")])


@pytest.mark.parametrize(
    ("target", "source", "message"),
    [
        ("vision.projector", "vision.encoder", "same parameters"),
        ("vision.separator", "vision.row_separator", "same parameters"),
        ("vision.nothing", "vision.projector", "same parameters"),
        ("language.model.norm", "language.model.layers.0.input_layernorm", "language model is frozen"),
    ],
)
def test_an_impossible_copy_is_refused(model: Phi4Multimodal, target: str, source: str, message: str) -> None:
    before = digest_frozen(model, ())
    with pytest.raises(ConfigError, match=message):
        copy_parts(model, {target: source})
    assert digest_frozen(model, ()) == before


def test_the_digest_sees_every_bit_of_what_is_frozen_and_nothing_else(model: Phi4Multimodal) -> None:
    changing = {"vision.separator"}
    before = digest_frozen(model, changing)
    with torch.no_grad():
        model.vision.separator.add_(1.0)
        assert digest_frozen(model, changing) == before
        model.speech.encoder.global_mean.view(torch.int16)[-1:] ^= 1  # the lowest bit of a buffer
    assert digest_frozen(model, changing) != before
