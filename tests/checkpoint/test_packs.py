import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from phi4.checkpoint.convert import convert
from phi4.checkpoint.digest import base_digest
from phi4.checkpoint.initialise import initialise
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.packs import read_pack, save_pack
from phi4.checkpoint.tensor_files import map_file
from phi4.checkpoint.weights import load_model
from phi4.errors import CheckpointError, InputError
from phi4.json_file import read_json
from phi4.model.multimodal import Phi4Multimodal


def digest_of(directory: Path) -> str:
    return base_digest(open_checkpoint(directory).tensors)


def edit_metadata(path: Path, changes: dict[str, str | None]) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), **changes}
    save_file(load_file(path), path, {key: value for key, value in metadata.items() if value is not None})


def test_splitting_and_joining_loses_nothing(tiny_directory: Path, packed_directory: Path, tmp_path: Path) -> None:
    packs = [packed_directory / "vision.safetensors", packed_directory / "speech.safetensors"]
    convert(packed_directory / "base", tmp_path / "joined", "released", packs=packs)
    before, after = open_checkpoint(tiny_directory).tensors, open_checkpoint(tmp_path / "joined").tensors
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].read(), after[name].read()) for name in before)
    for name in ("config.json", "preprocessor_config.json", "generation_config.json", "tokenizer.json"):
        assert read_json(tmp_path / "joined" / name) == read_json(tiny_directory / name)


def test_a_base_with_packs_is_the_multimodal_model(tiny_directory: Path, packed_directory: Path) -> None:
    packs = [packed_directory / "speech.safetensors", packed_directory / "vision.safetensors"]
    whole, joined = load_model(tiny_directory), load_model(packed_directory / "base", packs=packs)
    assert joined.config.vision == whole.config.vision
    assert joined.config.speech == whole.config.speech
    assert joined.config.adapters == whole.config.adapters
    assert joined.preprocessor == whole.preprocessor
    state = whole.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in joined.model.state_dict().items())


def test_one_pack_gives_one_modality(packed_directory: Path) -> None:
    loaded = load_model(packed_directory / "base", packs=[packed_directory / "speech.safetensors"])
    assert loaded.config.vision is None
    assert loaded.model.adapter_for(frozenset({"speech"})) == "speech"
    with pytest.raises(InputError, match="vision"):
        loaded.model.adapter_for(frozenset({"vision"}))


def test_packs_hold_released_names_and_both_audio_projectors(packed_directory: Path) -> None:
    speech, vision = (read_pack(packed_directory / f"{name}.safetensors") for name in ("speech", "vision"))
    audio = "model.embed_tokens_extend.audio_embed.audio_projection"
    assert {f"{audio}.speech.0.weight", f"{audio}.vision.2.bias"} <= speech.tensors.keys()
    assert "model.layers.1.mlp.down_proj.lora_B.speech.weight" in speech.tensors
    assert "model.embed_tokens_extend.image_embed.glb_GN" in vision.tensors
    assert not any("base_layer" in name or "embed_tokens.weight" in name for name in vision.tensors)
    assert (vision.placeholder_id, speech.placeholder_id) == (257, 258)
    assert vision.preprocessor["dynamic_hd"] == 4
    assert "dynamic_hd" not in speech.preprocessor


def test_a_trained_modality_is_saved_as_a_pack(packed_directory: Path, tmp_path: Path) -> None:
    base, pack = packed_directory / "base", packed_directory / "vision.safetensors"
    loaded = load_model(base, packs=[pack])
    assert isinstance(loaded.model, Phi4Multimodal)
    with torch.no_grad():
        loaded.model.vision.projector.up.bias.add_(1.0)
    notes = {"pictures": 12, "sets": ["made up"]}
    path = tmp_path / "new.safetensors"
    save_pack(loaded.model, "vision", path, torch.bfloat16, digest_of(base), notes, loaded.preprocessor)
    assert read_pack(path).trained_on == notes
    again = load_model(base, packs=[path])
    state = loaded.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in again.model.state_dict().items())
    with pytest.raises(CheckpointError, match="no speech to save as a pack"):
        save_pack(loaded.model, "speech", tmp_path / "none.safetensors", torch.bfloat16, "", notes, {})


def test_the_digest_is_the_bases_alone(tiny_directory: Path, packed_directory: Path, converted_directory: Path) -> None:
    digest = digest_of(tiny_directory)
    assert len(digest) == 64
    assert digest_of(packed_directory / "base") == digest_of(converted_directory) == digest
    assert read_pack(packed_directory / "vision.safetensors").base_digest == digest


def test_the_definition_of_the_digest_never_changes(tmp_path: Path) -> None:
    """Packs in the world carry it."""
    tensors = {"model.norm.weight": torch.arange(6).bfloat16(), "model.embed_tokens.weight": torch.ones(2, 3)}
    save_file(tensors, tmp_path / "f.safetensors")
    assert (
        base_digest(map_file(tmp_path / "f.safetensors"))
        == "a551f974a26412ad8506f538ddb2198e92652c14b075a547ec5cbf24a5250624"
    )


@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.base_layer.weight", "model.norm.weight"])
def test_any_change_of_the_base_changes_the_digest(
    model_directory: Path, edit_tensors: Callable[[Path, Callable[[dict[str, torch.Tensor]], object]], None], name: str
) -> None:
    before = digest_of(model_directory)
    edit_tensors(model_directory / "model.safetensors", lambda tensors: tensors[name].view(-1)[-1:].neg_())
    assert digest_of(model_directory) != before


def test_a_modality_does_not_change_the_digest(
    model_directory: Path, edit_tensors: Callable[[Path, Callable[[dict[str, torch.Tensor]], object]], None]
) -> None:
    before = digest_of(model_directory)
    adapter = "model.layers.1.mlp.down_proj.lora_A.vision.weight"
    edit_tensors(model_directory / "model.safetensors", lambda tensors: tensors[adapter].zero_())
    assert digest_of(model_directory) == before


def test_the_dtype_is_part_of_the_digest(tiny_directory: Path, tmp_path: Path) -> None:
    initialise("tiny", tmp_path / "wide", dtype=torch.float32)
    assert digest_of(tmp_path / "wide") != digest_of(tiny_directory)


def test_a_pack_for_another_base_is_refused_with_both_digests(packed_directory: Path, tmp_path: Path) -> None:
    initialise("tiny", tmp_path / "other", seed=1)
    convert(tmp_path / "other", tmp_path / "packed", "packs")
    base, pack = packed_directory / "base", tmp_path / "packed/vision.safetensors"
    with pytest.raises(CheckpointError) as caught:
        load_model(base, packs=[pack])
    assert digest_of(base) in str(caught.value)
    assert read_pack(pack).base_digest in str(caught.value)


def test_packs_go_onto_a_bare_base_once(tiny_directory: Path, packed_directory: Path) -> None:
    vision = packed_directory / "vision.safetensors"
    with pytest.raises(CheckpointError, match="modalities inside"):
        load_model(tiny_directory, packs=[vision])
    with pytest.raises(CheckpointError, match="one pack for each modality, not vision, vision"):
        load_model(packed_directory / "base", packs=[vision, vision])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "pt"}, "not a pack of version 1"),
        ({"version": "2"}, "version '2'"),
        ({"modality": "smell"}, "'smell'"),
        ({"config": "{}"}, "with an embd_layer"),
        ({"config": '{"embd_layer": null}'}, "with an embd_layer"),
        ({"config": '["embd_layer"]'}, "must be JSON objects"),
        ({"preprocessor": "3"}, "must be JSON objects"),
        ({"config": "{"}, "incomplete"),
        ({"base_digest": None}, "incomplete"),
        ({"placeholder_id": "none"}, "incomplete"),
        ({"placeholder_id": "5"}, "placeholder_id 5 disagree"),
    ],
)
def test_broken_metadata_is_named(
    packed_directory: Path, tmp_path: Path, changes: dict[str, str | None], said: str
) -> None:
    pack = tmp_path / "vision.safetensors"
    pack.write_bytes((packed_directory / "vision.safetensors").read_bytes())
    edit_metadata(pack, changes)
    with pytest.raises(CheckpointError, match=said):
        load_model(packed_directory / "base", packs=[pack])


def test_a_truncated_or_absent_pack_is_named(packed_directory: Path, tmp_path: Path) -> None:
    pack = tmp_path / "vision.safetensors"
    with pytest.raises(CheckpointError, match=r"vision\.safetensors"):
        load_model(packed_directory / "base", packs=[pack])
    pack.write_bytes((packed_directory / "vision.safetensors").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        load_model(packed_directory / "base", packs=[pack])


def test_an_adapter_of_another_rank_than_its_configuration_is_refused(packed_directory: Path, tmp_path: Path) -> None:
    pack = tmp_path / "vision.safetensors"
    pack.write_bytes((packed_directory / "vision.safetensors").read_bytes())
    with safe_open(pack, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
    config["vision_lora"]["r"] = 5
    edit_metadata(pack, {"config": json.dumps(config)})
    with pytest.raises(CheckpointError, match=r"lora_A\.vision\.weight \[4, 64\] instead of \[5, 64\]"):
        load_model(packed_directory / "base", packs=[pack])


def test_a_pack_cannot_change_the_decoder_or_the_other_modality(packed_directory: Path, tmp_path: Path) -> None:
    pack = tmp_path / "vision.safetensors"
    pack.write_bytes((packed_directory / "vision.safetensors").read_bytes())
    config = dict(read_pack(pack).config)
    config["embd_layer"] = {**config["embd_layer"], "audio_embd_layer": {"audio_token_id": 3}}
    intruding = {**config, "rope_theta": 5.0, "eos_token_id": 1, "speech_lora": {"r": 1}}
    edit_metadata(pack, {"config": json.dumps(intruding)})
    packs = [packed_directory / "speech.safetensors", packed_directory / "vision.safetensors"]
    expected = load_model(packed_directory / "base", packs=packs).config.raw
    assert load_model(packed_directory / "base", packs=[packs[0], pack]).config.raw == expected
