from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from phi4.checkpoint.initialise import initialise, random_tensor
from phi4.checkpoint.keymap import parameter_shapes
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.presets import PRESETS, load_preset
from phi4.checkpoint.shards import MAX_SHARD_BYTES, TensorSpec, plan_shards
from phi4.checkpoint.weights import load_model
from phi4.errors import CheckpointError, ConfigError


def test_the_seed_decides_the_weights(tiny_directory: Path, tmp_path: Path) -> None:
    initialise("tiny", tmp_path / "same")
    initialise("tiny", tmp_path / "other", seed=1)
    weights = (tiny_directory / "model.safetensors").read_bytes()
    assert (tmp_path / "same/model.safetensors").read_bytes() == weights
    assert (tmp_path / "other/model.safetensors").read_bytes() != weights


def test_shard_size_does_not_change_the_weights(tiny_directory: Path, tmp_path: Path) -> None:
    initialise("tiny", tmp_path / "sharded", max_shard_bytes=100_000)
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 3
    one, many = open_checkpoint(tiny_directory).tensors, open_checkpoint(tmp_path / "sharded").tensors
    assert all(torch.equal(one[name].read(), many[name].read()) for name in one)


def test_tensors_of_one_shape_differ_by_their_names() -> None:
    spec = TensorSpec(torch.float32, (8, 8))
    assert not torch.equal(random_tensor("a.weight", spec, 0, 0.02), random_tensor("b.weight", spec, 0, 0.02))


def test_adapters_act_and_normalisations_start_as_the_identity(tiny_directory: Path) -> None:
    state = load_model(tiny_directory).model.state_dict()
    one_dimensional = {name for name, tensor in state.items() if tensor.dim() == 1}
    for name in one_dimensional:
        expected = 0.0 if name.endswith(("bias", "global_mean")) else 1.0
        assert (state[name] == expected).all(), name
    for name in state.keys() - one_dimensional:
        if not name.endswith((".b1", ".b2")):
            assert state[name].float().std() > 0.01, name


def test_a_directory_that_is_not_empty_is_left_alone(tiny_directory: Path) -> None:
    with pytest.raises(CheckpointError, match="not empty"):
        initialise("tiny", tiny_directory)


def test_an_unknown_preset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'huge'; there are tiny, nano, mini, multimodal"):
        initialise("huge", tmp_path / "huge")


def test_the_tiny_tokenizer_spells_bytes_and_knows_the_control_tokens(tiny_directory: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_directory / "tokenizer.json"))
    text = "naïve 🙂\x00\n"
    assert tokenizer.encode(text).ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.encode("<|user|>\n Hi<|end|>").ids == [262, *b"Hi", 261]
    assert tokenizer.encode("<|endoftext10|><|endoftext11|><|endoftext|>").ids == [257, 258, 256]


def test_tiny_has_everything_and_its_own_factor_lists(tiny_directory: Path) -> None:
    config = load_preset("tiny").config
    assert config.vision is not None
    assert config.speech is not None
    assert config.decoder.rope_scaling is not None
    assert len(config.decoder.rope_scaling.long_factor) == 6
    assert (config.vision.image_token_id, config.speech.audio_token_id) == (257, 258)
    assert load_model(tiny_directory).generation.eos_token_ids == (261, 256)


@pytest.mark.parametrize("name", PRESETS)
def test_generation_ends_at_ids_of_the_vocabulary(name: str) -> None:
    preset = load_preset(name)
    assert all(0 <= token_id < preset.config.decoder.vocab_size for token_id in preset.generation["eos_token_id"])


@pytest.mark.parametrize(("name", "shards"), [("mini", 2), ("multimodal", 3)])
def test_full_sizes_have_as_many_shards_as_the_release(name: str, shards: int) -> None:
    shapes = parameter_shapes(load_preset(name).config)
    specs = {key: TensorSpec(torch.bfloat16, shape) for key, shape in shapes.items()}
    assert len(plan_shards(specs, MAX_SHARD_BYTES)) == shards


def test_the_configuration_of_nano_is_that_of_the_imported_model() -> None:
    decoder = load_preset("nano").config.decoder
    assert (decoder.hidden_size, decoder.num_hidden_layers, decoder.vocab_size) == (576, 30, 49152)
    assert decoder.rope_scaling is None
