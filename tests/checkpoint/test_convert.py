import shutil
from pathlib import Path

import pytest
import torch

from phi4.checkpoint.convert import Form, convert
from phi4.checkpoint.layouts import open_checkpoint
from phi4.errors import CheckpointError


@pytest.mark.parametrize("form", ["released", "converted"])
def test_there_and_back_keeps_every_bit(tiny_directory: Path, tmp_path: Path, form: Form) -> None:
    convert(tiny_directory, tmp_path / "there", form, max_shard_bytes=100_000)
    convert(tmp_path / "there", tmp_path / "back", "released")
    before, after = open_checkpoint(tiny_directory), open_checkpoint(tmp_path / "back")
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(before.tensors[name].read(), after.tensors[name].read()) for name in before.tensors)
    assert (before.config.decoder, before.config.vision, before.config.speech, before.config.adapters) == (
        after.config.decoder,
        after.config.vision,
        after.config.speech,
        after.config.adapters,
    )
    assert (before.generation, before.preprocessor) == (after.generation, after.preprocessor)


def test_the_tokenizer_comes_along(tiny_directory: Path, converted_directory: Path, packed_directory: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        original = (tiny_directory / name).read_bytes()
        assert (converted_directory / name).read_bytes() == original
        assert (packed_directory / "base" / name).read_bytes() == original
    assert not (packed_directory / "base/preprocessor_config.json").exists()


def test_a_language_model_has_no_packs(packed_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no modality to write as a pack"):
        convert(packed_directory / "base", tmp_path / "packs", "packs")
    assert list(tmp_path.iterdir()) == []


def test_one_pack_is_not_a_released_multimodal_model(packed_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="lacks one"):
        convert(packed_directory / "base", tmp_path / "r", "released", packs=[packed_directory / "vision.safetensors"])


def test_a_gguf_file_becomes_a_released_directory_only(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="into the released layout, without packs"):
        convert(tmp_path / "model.gguf", tmp_path / "out", "converted")


def test_a_failed_conversion_leaves_nothing(model_directory: Path, tmp_path: Path) -> None:
    weights = model_directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        convert(model_directory, tmp_path / "out", "converted")
    assert not (tmp_path / "out").exists()


def test_an_encoder_without_an_adapter_is_not_dropped(converted_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(converted_directory, tmp_path / "native")
    shutil.rmtree(tmp_path / "native" / "speech-lora")
    with pytest.raises(CheckpointError, match=r"no adapter for speech.*speech-lora"):
        convert(tmp_path / "native", tmp_path / "out", "packs")
