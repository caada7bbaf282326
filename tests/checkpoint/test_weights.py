import json
from pathlib import Path

import pytest
import torch

from phi4.checkpoint.keymap import Layout
from phi4.checkpoint.weights import LoadedModel, load_model, save_model
from phi4.config import GenerationConfig
from phi4.errors import CheckpointError
from phi4.json_file import read_json
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal


def same_bits(left: LoadedModel, right: LoadedModel) -> bool:
    ours, theirs = left.model.state_dict(), right.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("layout", ["released", "converted"])
def test_reload_equals_saved(tiny_directory: Path, tmp_path: Path, layout: Layout) -> None:
    loaded = load_model(tiny_directory)
    save_model(loaded.model, loaded.config, tmp_path / "copy", layout, companions=tiny_directory)
    again = load_model(tmp_path / "copy")
    assert same_bits(loaded, again)
    assert again.config == type(again.config)(**{**vars(loaded.config), "raw": again.config.raw})
    assert again.generation == loaded.generation
    assert again.preprocessor == loaded.preprocessor


def test_the_configuration_is_written_back_unknown_keys_included(model_directory: Path, tmp_path: Path) -> None:
    path = model_directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "made_up": {"by": ["somebody", None]}}))
    loaded = load_model(model_directory)
    save_model(loaded.model, loaded.config, tmp_path / "copy")
    assert json.loads((tmp_path / "copy/config.json").read_text()) == json.loads(path.read_text())


def test_a_stored_dtype_is_mapped_and_another_is_converted(tiny_directory: Path, tmp_path: Path) -> None:
    stored = load_model(tiny_directory)
    assert {tensor.dtype for tensor in stored.model.state_dict().values()} == {torch.bfloat16}
    assert load_model(tiny_directory, dtype=torch.bfloat16).model.dtype == torch.bfloat16
    wide = load_model(tiny_directory, dtype=torch.float32)
    assert {tensor.dtype for tensor in wide.model.state_dict().values()} == {torch.float32}
    save_model(wide.model, wide.config, tmp_path / "wide")
    assert json.loads((tmp_path / "wide/config.json").read_text())["torch_dtype"] == "float32"
    assert same_bits(wide, load_model(tmp_path / "wide"))


def test_nothing_requires_a_gradient(tiny_directory: Path) -> None:
    model = load_model(tiny_directory).model
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_changing_a_loaded_model_leaves_its_files_alone(model_directory: Path) -> None:
    before = (model_directory / "model.safetensors").read_bytes()
    with torch.no_grad():
        for parameter in load_model(model_directory).model.parameters():
            parameter.fill_(1.0)
    assert (model_directory / "model.safetensors").read_bytes() == before


def test_a_base_without_packs_is_a_language_model(packed_directory: Path, tmp_path: Path) -> None:
    loaded = load_model(packed_directory / "base")
    assert isinstance(loaded.model, Phi4Mini)
    assert loaded.preprocessor == {}
    save_model(loaded.model, loaded.config, tmp_path / "copy")
    assert same_bits(loaded, load_model(tmp_path / "copy"))


def test_saving_what_the_layout_cannot_hold_is_refused(packed_directory: Path, tmp_path: Path) -> None:
    loaded = load_model(packed_directory / "base", packs=[packed_directory / "vision.safetensors"])
    assert isinstance(loaded.model, Phi4Multimodal)
    with pytest.raises(CheckpointError, match="lacks one; save its modality as a pack"):
        save_model(loaded.model, loaded.config, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_generation_settings_come_from_their_file_before_the_configuration(model_directory: Path) -> None:
    assert load_model(model_directory).generation.eos_token_ids == (261, 256)
    (model_directory / "generation_config.json").unlink()
    assert load_model(model_directory).generation.eos_token_ids == (256,)


def test_the_preprocessor_file_of_transformers_5_is_understood(model_directory: Path) -> None:
    (model_directory / "preprocessor_config.json").unlink()
    nested = {"image_processor": {"dynamic_hd": 7}, "feature_extractor": {"audio_compression_rate": 8}}
    (model_directory / "processor_config.json").write_text(json.dumps(nested))
    assert load_model(model_directory).preprocessor == {"dynamic_hd": 7, "audio_compression_rate": 8}


@pytest.mark.parametrize("layout", ["released", "converted"])
def test_saving_without_companions_keeps_every_end_token(tiny_directory: Path, tmp_path: Path, layout: Layout) -> None:
    loaded = load_model(tiny_directory)
    save_model(loaded.model, loaded.config, tmp_path / "copy", layout, generation=loaded.generation)
    assert load_model(tmp_path / "copy").generation.eos_token_ids == (261, 256)
    save_model(loaded.model, loaded.config, tmp_path / "plain", layout)
    assert load_model(tmp_path / "plain").generation.eos_token_ids == (256,)


def test_given_end_tokens_win_over_the_companions(model_directory: Path, tmp_path: Path) -> None:
    path = model_directory / "generation_config.json"
    path.write_text('{"temperature": 0.5, "eos_token_id": [261, 256]}')
    loaded = load_model(model_directory)
    ends = GenerationConfig(eos_token_ids=(7,))
    save_model(loaded.model, loaded.config, tmp_path / "copy", companions=model_directory, generation=ends)
    assert read_json(tmp_path / "copy/generation_config.json") == {"temperature": 0.5, "eos_token_id": [7]}
