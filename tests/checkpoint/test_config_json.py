"""Reading `config.json`: the released files, other spellings, and files that contradict themselves."""

import json
from importlib import resources
from typing import Any

import pytest

from phi4.checkpoint.config_json import read_config, read_generation
from phi4.config import VisionConfig
from phi4.errors import ConfigError


def released(preset: str) -> dict[str, Any]:
    path = resources.files("phi4.checkpoint") / "presets" / preset / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def changed(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy in which the value at a dotted path is another one; DELETED takes it away."""
    copy = json.loads(json.dumps(raw))
    *parents, last = path.split(".")
    section = copy
    for parent in parents:
        section = section[parent]
    if value is DELETED:
        del section[last]
    else:
        section[last] = value
    return copy


DELETED = object()


def test_the_released_multimodal_file_has_the_released_sizes() -> None:
    config = read_config(released("multimodal"))
    assert config.decoder == read_config(released("mini")).decoder
    assert (config.decoder.head_dim, config.decoder.rotary_dim, config.decoder.kv_values_per_token) == (128, 96, 65536)
    assert config.vision == VisionConfig()
    assert config.vision.num_feature_layers == 26
    assert config.speech is not None
    assert (config.speech.bias_max_distance, config.speech.subsampled_mels) == (500, 10)
    assert {name: (a.rank, a.scale) for name, a in config.adapters.items()} == {
        "vision": (256, 2.0),
        "speech": (320, 2.0),
    }


def test_the_newer_spelling_of_rope_gives_the_same_decoder() -> None:
    raw = released("mini")
    scaling = raw.pop("rope_scaling")
    names = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
    raw["rope_parameters"] = {"rope_type": scaling.pop("type"), **scaling, **{name: raw.pop(name) for name in names}}
    assert read_config(raw).decoder == read_config(released("mini")).decoder


def test_a_llama_shaped_decoder_is_the_same_class_with_other_numbers() -> None:
    raw = released("nano")
    decoder = read_config(raw).decoder
    assert (decoder.rotary_dim, decoder.rope_scaling) == (decoder.head_dim, None)
    assert not decoder.uses_long_rope(decoder.max_position_embeddings)


def test_unknown_keys_are_kept() -> None:
    raw = released("mini") | {"from_the_future": [1]}
    assert read_config(raw).raw["from_the_future"] == [1]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model_type", "bert"),
        ("hidden_size", DELETED),
        ("hidden_size", "large"),
        ("num_hidden_layers", "two"),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", 1_000_000_000),
        ("audio_processor.config.num_blocks", 1_000_000_000),
        ("num_key_value_heads", 7),
        ("rms_norm_eps", "small"),
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("sliding_window", 2048),
        ("rope_scaling", "longrope"),
        ("rope_scaling.type", "yarn"),
        ("rope_scaling.long_factor", [1.0, 2.0]),
        ("rope_scaling.short_factor", "ones"),
        ("rope_scaling.short_factor", DELETED),
        ("rope_scaling.factor", 31.0),
        ("rope_scaling.attention_factor", 1.5),
        ("rope_scaling.beta_fast", 32),
        ("rope_scaling.mscale", 1.0),
        ("rope_scaling.low_freq_factor", 1.0),
        ("partial_rotary_factor", 1.25),
        ("partial_rotary_factor", 0),
        ("audio_processor", DELETED),
        ("audio_processor.config.chunk_size", 18),
        ("audio_processor.config.attention_heads", 7),
        ("audio_processor.config.time_reduction", 6),
        ("embd_layer.image_embd_layer.crop_size", 450),
        ("embd_layer.image_embd_layer.hd_transform_order", "glb_sub"),
        ("img_processor", {"depth": 3}),
        ("img_processor", {"hidden_size": "wide"}),
        ("img_processor", "siglip"),
        ("img_processor", {"hidden_size": 16.0}),
        ("img_processor", {"num_attention_heads": 0}),
        ("img_processor", {"patch_size": True}),
        ("img_processor", {"feature_layer": 1}),
        ("img_processor", {"feature_layer": -2.0}),
        ("img_processor", {"layer_norm_eps": "small"}),
        ("embd_layer.image_embd_layer.image_token_id", "<|image|>"),
        ("embd_layer.audio_embd_layer.audio_token_id", -1),
        ("vision_lora.r", 0),
        ("vision_lora.layer", "layers.*mlp.*"),
        ("vision_lora.layer", "("),
        ("speech_lora", DELETED),
    ],
)
def test_a_value_that_cannot_be_is_named(path: str, value: Any) -> None:
    named = value if isinstance(value, dict) else ()
    with pytest.raises(ConfigError) as raised:
        read_config(changed(released("multimodal"), path, value))
    assert any(part in str(raised.value) for part in (*path.split("."), *named, "heads", "image_size"))


def test_both_end_tokens_are_read() -> None:
    assert read_generation({"eos_token_id": [200020, 199999]}).eos_token_ids == (200020, 199999)
    assert read_generation({"eos_token_id": 5}).eos_token_ids == (5,)


@pytest.mark.parametrize("eos", [None, [], "end", ["end"], True, [-1]])
def test_a_model_without_end_token_is_refused(eos: Any) -> None:
    with pytest.raises(ConfigError, match="eos_token_id"):
        read_generation({"eos_token_id": eos})


def test_a_rope_factor_that_says_what_the_contexts_say_is_read() -> None:
    raw = released("mini")
    same = changed(changed(raw, "rope_scaling.factor", 32.0), "rope_scaling.attention_factor", None)
    assert read_config(same).decoder == read_config(raw).decoder


@pytest.mark.parametrize("head_dim", [7, 1])
def test_rotary_dimensions_come_in_pairs(head_dim: int) -> None:
    with pytest.raises(ConfigError, match="rotary dimensions; they must be an even number"):
        read_config(released("nano") | {"head_dim": head_dim, "partial_rotary_factor": 1.0})
