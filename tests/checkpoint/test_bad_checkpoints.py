"""Every way in which a directory can be wrong is named, with what to do about it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from phi4.checkpoint.convert import convert
from phi4.checkpoint.tensor_files import list_some, map_directory
from phi4.checkpoint.weights import load_model
from phi4.errors import CheckpointError, ConfigError
from phi4.json_file import read_json

EditTensors = Callable[[Path, Callable[[dict[str, torch.Tensor]], object]], None]
EditJson = Callable[[Path, dict[str, Any]], None]
NORM = "model.norm.weight"

# JSON of a valid form that Python's reader gives up on: too deep, and more digits than it converts.
DEEP = pytest.param("[" * 200_000, id="deep")
DIGITS = pytest.param("9" * 5_000, id="digits")


@pytest.fixture
def sharded_directory(tiny_directory: Path, tmp_path: Path) -> Path:
    convert(tiny_directory, tmp_path / "sharded", "released", max_shard_bytes=150_000)
    return tmp_path / "sharded"


def refuses(directory: Path, *said: str) -> None:
    """The directory is refused, and the message says all of these."""
    with pytest.raises(CheckpointError) as caught:
        load_model(directory)
    for words in said:
        assert words in str(caught.value)


def test_a_truncated_shard_is_named(sharded_directory: Path) -> None:
    shard = sorted(sharded_directory.glob("model-00002-*"))[0]
    shard.write_bytes(shard.read_bytes()[:-1000])
    refuses(sharded_directory, shard.name, "truncated", "download")


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"not safetensors at all", b"\xff" * 64])
def test_a_file_that_is_not_safetensors_is_named(model_directory: Path, content: bytes) -> None:
    (model_directory / "model.safetensors").write_bytes(content)
    refuses(model_directory, "model.safetensors", "not a safetensors file")


def test_a_missing_tensor_is_listed(model_directory: Path, edit_tensors: EditTensors) -> None:
    edit_tensors(model_directory / "model.safetensors", lambda tensors: tensors.pop(NORM))
    refuses(model_directory, f"missing: {NORM}")


def test_an_unknown_tensor_is_listed(model_directory: Path, edit_tensors: EditTensors) -> None:
    edit_tensors(model_directory / "model.safetensors", lambda tensors: tensors.update(surprise=torch.zeros(1)))
    refuses(model_directory, "unknown: surprise")


def test_a_misshapen_tensor_is_listed_with_both_shapes(model_directory: Path, edit_tensors: EditTensors) -> None:
    edit_tensors(model_directory / "model.safetensors", lambda tensors: tensors.update({NORM: torch.zeros(65)}))
    refuses(model_directory, f"misshapen: {NORM} [65] instead of [64]")


def test_a_head_beside_tied_embeddings_is_unknown(model_directory: Path, edit_tensors: EditTensors) -> None:
    head = {"lm_head.weight": torch.zeros(320, 64)}
    edit_tensors(model_directory / "model.safetensors", lambda tensors: tensors.update(head))
    refuses(model_directory, "unknown: lm_head.weight")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.float8_e4m3fn])
def test_a_dtype_that_is_not_floating_point_of_two_or_four_bytes_is_refused(
    model_directory: Path, edit_tensors: EditTensors, dtype: torch.dtype
) -> None:
    wrong = {NORM: torch.ones(64).to(dtype)}
    edit_tensors(model_directory / "model.safetensors", lambda tensors: tensors.update(wrong))
    refuses(model_directory, NORM, "only F32, F16, BF16, U8 are supported")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("num_hidden_layers", 1, "unknown: model.layers.1."),
        ("num_hidden_layers", 3, "missing: model.layers.2."),
        ("intermediate_size", 256, "misshapen: model.layers."),
        ("vocab_size", 319, "misshapen: model.embed_tokens.weight [320, 64] instead of [319, 64]"),
        ("tie_word_embeddings", False, "missing: lm_head.weight"),
    ],
)
def test_a_configuration_that_contradicts_the_weights_is_suspected(
    model_directory: Path, edit_json: EditJson, key: str, value: object, said: str
) -> None:
    edit_json(model_directory / "config.json", {key: value})
    refuses(model_directory, said, "config.json belongs to another model")


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff\xfe", DEEP, DIGITS])
def test_a_broken_configuration_is_a_configuration_error(model_directory: Path, content: str) -> None:
    (model_directory / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_model(model_directory)


def test_a_missing_configuration_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        load_model(tmp_path)


def test_a_file_is_no_model_directory(model_directory: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        load_model(model_directory / "model.safetensors")


def test_a_file_that_cannot_be_read_is_not_called_invalid(model_directory: Path) -> None:
    (model_directory / "config.json").unlink()
    (model_directory / "config.json").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json cannot be read: Is a directory"):
        load_model(model_directory)


def test_another_model_is_refused_by_its_type(model_directory: Path, edit_json: EditJson) -> None:
    edit_json(model_directory / "config.json", {"model_type": "llama", "eos_token_id": None})
    with pytest.raises(ConfigError, match="'llama'"):
        load_model(model_directory)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "last.ckpt"])
def test_pickled_weights_are_never_opened(model_directory: Path, name: str) -> None:
    (model_directory / "model.safetensors").unlink()
    (model_directory / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    refuses(model_directory, name, "pickled", "Convert them to safetensors")


def test_a_directory_without_weights_is_no_model(model_directory: Path) -> None:
    (model_directory / "model.safetensors").unlink()
    refuses(model_directory, "neither model.safetensors nor")


def test_shards_without_their_index_are_refused(sharded_directory: Path) -> None:
    (sharded_directory / "model.safetensors.index.json").unlink()
    refuses(sharded_directory, "no model.safetensors.index.json")


def test_a_shard_that_is_not_there_is_named(sharded_directory: Path) -> None:
    shard = sorted(sharded_directory.glob("model-00002-*"))[0]
    shard.unlink()
    refuses(sharded_directory, f"names {shard.name}, which is not there")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": ["a"]}', DEEP, DIGITS])
def test_a_broken_index_is_named(sharded_directory: Path, content: str) -> None:
    (sharded_directory / "model.safetensors.index.json").write_text(content)
    refuses(sharded_directory, "is not an index")


def test_a_tensor_that_the_index_lists_twice_is_named(sharded_directory: Path) -> None:
    index = sharded_directory / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(f'"{NORM}"', f'"{NORM}": "model-00001-of-00003.safetensors", "{NORM}"'))
    refuses(sharded_directory, f"lists {NORM} twice")


def test_an_index_cannot_point_outside_its_directory(sharded_directory: Path) -> None:
    index = sharded_directory / "model.safetensors.index.json"
    weight_map = read_json(index)["weight_map"]
    index.write_text(json.dumps({"weight_map": {**weight_map, NORM: "../elsewhere.safetensors"}}))
    refuses(sharded_directory, "outside its own directory", "../elsewhere.safetensors")


def test_a_tensor_in_two_shards_is_named(sharded_directory: Path, edit_tensors: EditTensors) -> None:
    weight_map = read_json(sharded_directory / "model.safetensors.index.json")["weight_map"]
    other = next(shard for shard in weight_map.values() if shard != weight_map[NORM])
    edit_tensors(sharded_directory / other, lambda tensors: tensors.update({NORM: torch.zeros(64)}))
    refuses(sharded_directory, f"{NORM} stored twice", other, weight_map[NORM])


def test_an_index_that_disagrees_with_its_shards_is_refused(sharded_directory: Path) -> None:
    index = sharded_directory / "model.safetensors.index.json"
    weight_map = read_json(index)["weight_map"]
    del weight_map[NORM]
    index.write_text(json.dumps({"weight_map": weight_map}))
    refuses(sharded_directory, f"not in the index: {NORM}")


def test_long_lists_are_cut_and_counted() -> None:
    assert list_some([f"t{number}" for number in range(9)]) == "t0, t1, t2, t3, … (9 in all)"
    assert list_some({"b", "a"}) == "a, b"


def test_many_missing_tensors_are_counted(tmp_path: Path, model_directory: Path) -> None:
    save_file({NORM: torch.ones(64)}, model_directory / "model.safetensors", metadata={"format": "pt"})
    assert map_directory(model_directory).keys() == {NORM}
    with pytest.raises(CheckpointError, match=re.escape("(210 in all)")):
        load_model(model_directory)


@pytest.mark.parametrize("part", [None, "siglip", [1]])
def test_a_nested_preprocessor_part_that_is_no_object_is_named(model_directory: Path, part: object) -> None:
    (model_directory / "preprocessor_config.json").unlink()
    (model_directory / "processor_config.json").write_text(json.dumps({"image_processor": part}))
    with pytest.raises(ConfigError, match=r"processor_config\.json: its processors must be objects"):
        load_model(model_directory)
