import dataclasses
import json
from pathlib import Path

import pytest

from phi4.checkpoint.inspect import CacheReport, component_of, inspect_checkpoint
from phi4.checkpoint.keymap import key_table
from phi4.checkpoint.nano import PACKS
from phi4.checkpoint.presets import load_preset
from phi4.checkpoint.quantise import SCHEMES, quantise
from phi4.checkpoint.tensor_files import read_metadata
from phi4.errors import CheckpointError

# Facts sheet 6.4.
RELEASED_VALUES = {
    "language": 3_836_021_760,
    "vision_lora": 369_098_752,
    "speech_lora": 461_373_440,
    "vision_encoder": 428_565_440,
    "vision_projector": 12_984_576,
    "audio_encoder": 441_238_144,
    "audio_projectors": 25_178_112,
    "audio_buffers": 160,
}


def test_components_of_the_released_size_hold_what_the_release_holds() -> None:
    counts = dict.fromkeys(RELEASED_VALUES, 0)
    for name, target in key_table(load_preset("multimodal").config, "released").items():
        size = 1
        for side in target.shape:
            size *= side
        counts[component_of(name)] += size
    assert counts == RELEASED_VALUES
    assert sum(counts.values()) == 5_574_460_384


def test_the_cache_of_mini_is_131072_bytes_per_token_a_third_of_full_multi_head() -> None:
    cache = CacheReport.from_config(load_preset("mini").config.decoder)
    assert cache.bytes_per_token == 131_072
    assert cache.bytes_per_token * cache.context_tokens == 16 * 1024**3
    assert cache.bytes_per_token_8bit == 65_536 + 1_280 * 4
    assert cache.share_of_multi_head == pytest.approx(1 / 3)


def test_a_directory_is_inspected(tiny_directory: Path, converted_directory: Path) -> None:
    inspection = inspect_checkpoint(tiny_directory)
    assert inspection.layout == "released"
    assert inspection.total_values == sum(inspection.values.values())
    assert inspection.dtypes == {"BF16": inspection.num_tensors}
    assert {name: (report.rank, report.scale) for name, report in inspection.adapters.items()} == {
        "vision": (4, 2.0),
        "speech": (8, 2.0),
    }
    converted = dataclasses.replace(inspection, path=converted_directory, layout="converted")
    assert inspect_checkpoint(converted_directory) == converted


def test_a_quantised_directory_has_as_many_weights_in_fewer_bytes(tiny_directory: Path, tmp_path: Path) -> None:
    quantise(tiny_directory, tmp_path / "quantised", SCHEMES["mixed"], encoders=True, adapters=True)
    before, after = inspect_checkpoint(tiny_directory), inspect_checkpoint(tmp_path / "quantised")
    assert after.values == before.values
    assert after.base_digest == before.base_digest
    assert before.total_bytes == 2 * before.total_values
    assert before.total_bytes > after.total_bytes > after.total_values / 2


def test_a_pack_is_inspected(tiny_directory: Path, packed_directory: Path) -> None:
    whole, pack = inspect_checkpoint(tiny_directory), inspect_checkpoint(packed_directory / "speech.safetensors")
    assert pack.layout == "pack"
    assert pack.cache is None
    assert pack.base_digest == whole.base_digest
    assert pack.values == {
        name: whole.values[name] for name in ("speech_lora", "audio_encoder", "audio_projectors", "audio_buffers")
    }


def test_a_pack_tells_the_stages_that_it_was_trained_in(packed_directory: Path) -> None:
    stages = inspect_checkpoint(PACKS[0]).stages
    assert stages[0] == "nano vision pretrain, 2000 steps on emoji"
    assert len(stages) == len(json.loads(read_metadata(PACKS[0])["trained_on"])["stages"])
    assert inspect_checkpoint(packed_directory / "speech.safetensors").stages == ()


def test_a_language_model_has_one_component(packed_directory: Path) -> None:
    inspection = inspect_checkpoint(packed_directory / "base")
    assert list(inspection.values) == ["language"]
    assert inspection.adapters == {}


def test_neither_directory_nor_pack_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        inspect_checkpoint(tmp_path / "nowhere")
