import math

import pytest

from phi4.checkpoint.keymap import (
    Layout,
    adapter_of,
    adapter_table,
    added_of,
    empty_model,
    file_name,
    key_table,
    modality_of,
    parameter_shapes,
)
from phi4.checkpoint.presets import load_preset
from phi4.errors import CheckpointError
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal

# Facts sheet 1.2, 4.6, 5.5 and 6.2, at full size.
RELEASED = {
    "model.embed_tokens.weight": (200064, 3072),
    "model.layers.31.self_attn.qkv_proj.base_layer.weight": (5120, 3072),
    "model.layers.0.mlp.gate_up_proj.lora_B.speech.weight": (16384, 320),
    "model.layers.0.mlp.down_proj.lora_A.vision.weight": (256, 8192),
    "model.embed_tokens_extend.image_embed.glb_GN": (1, 1, 1152),
    "model.embed_tokens_extend.image_embed.sub_GN": (1, 1, 1, 1152),
    "model.embed_tokens_extend.image_embed.img_projection.0.weight": (3072, 1152),
    "model.embed_tokens_extend.image_embed.img_processor.embeddings.patch_embedding.weight": (1152, 3, 14, 14),
    "model.embed_tokens_extend.image_embed.img_processor.embeddings.position_embedding.weight": (1024, 1152),
    "model.embed_tokens_extend.image_embed.img_processor.encoder.layers.26.mlp.fc1.bias": (4304,),
    "model.embed_tokens_extend.image_embed.img_processor.head.attention.in_proj_bias": (3456,),
    "model.embed_tokens_extend.audio_embed.encoder.encoder_embedding.global_invstd": (80,),
    "model.embed_tokens_extend.audio_embed.encoder.embed.conv.6.weight": (1024, 1024, 1, 1),
    "model.embed_tokens_extend.audio_embed.encoder.embed.out.weight": (1024, 10240),
    "model.embed_tokens_extend.audio_embed.encoder.relative_attention_bias_layer.bias_values.weight": (1000, 16),
    "model.embed_tokens_extend.audio_embed.encoder.encoders.23.feed_forward_in.net.0.linear.weight": (3072, 1024),
    "model.embed_tokens_extend.audio_embed.encoder.encoders.0.feed_forward_out.net.2.weight": (1024, 1536),
    "model.embed_tokens_extend.audio_embed.encoder.encoders.0.self_attn.linear_out.bias": (1024,),
    "model.embed_tokens_extend.audio_embed.encoder.encoders.0.conv.glu.ext_pw_conv_1d.weight": (2048, 1024, 1),
    "model.embed_tokens_extend.audio_embed.encoder.encoders.0.conv.glu.b1": (1, 1024, 1),
    "model.embed_tokens_extend.audio_embed.encoder.encoders.0.conv.dw_sep_conv_1d.dw_conv.weight": (1024, 1, 3),
    "model.embed_tokens_extend.audio_embed.encoder.encoders.0.conv.dw_sep_conv_1d.pw_conv.bias": (1024,),
    "model.embed_tokens_extend.audio_embed.encoder.encoders.0.conv.ext_pw_conv_1d.weight": (1024, 1024, 1),
    "model.embed_tokens_extend.audio_embed.encoder.encoders.0.layer_norm_att.weight": (1024,),
    "model.embed_tokens_extend.audio_embed.audio_projection.vision.2.weight": (3072, 3072),
}


@pytest.mark.parametrize(
    ("preset", "tensors", "values"), [("mini", 194, 3_836_021_760), ("multimodal", 2047, 5_574_460_384)]
)
def test_the_released_table_has_the_released_counts(preset: str, tensors: int, values: int) -> None:
    table = key_table(load_preset(preset).config, "released")
    assert len(table) == tensors
    assert sum(math.prod(target.shape) for target in table.values()) == values


def test_released_names_have_the_released_shapes() -> None:
    table = key_table(load_preset("multimodal").config, "released")
    assert {name: table[name].shape for name in RELEASED} == RELEASED


@pytest.mark.parametrize("layout", ["released", "converted"])
def test_the_table_is_total_and_bijective(layout: Layout) -> None:
    config = load_preset("multimodal").config
    tables = [key_table(config, layout)]
    if layout == "converted":
        tables += [adapter_table(config, adapter) for adapter in config.adapters]
    ours = [target.name for table in tables for target in table.values()]
    assert sorted(ours) == sorted(parameter_shapes(config))


def test_peft_names_drop_the_adapter() -> None:
    table = adapter_table(load_preset("tiny").config, "vision")
    target = table["base_model.model.model.layers.1.self_attn.o_proj.lora_B.weight"]
    assert target.name == "language.model.layers.1.self_attn.o_proj.lora_B.vision.weight"
    assert len(table) == 2 * 4 * 2


def test_a_name_without_a_row_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"vision\.unheard_of\.weight has no name in the released layout"):
        file_name("vision.unheard_of.weight", "released")


def test_the_configuration_decides_the_class() -> None:
    assert isinstance(empty_model(load_preset("mini").config), Phi4Mini)
    assert isinstance(empty_model(load_preset("tiny").config), Phi4Multimodal)


def test_names_say_which_modality_they_belong_to() -> None:
    modalities = {
        "language.model.norm.weight": "language",
        "model.norm.weight": "language",
        "language.model.layers.0.mlp.down_proj.lora_A.speech.weight": "speech",
        "vision.projector.up.bias": "vision",
        "speech.projectors.vision.up.bias": "speech",
        "sensor.up.bias": "sensor",
        "sensor.layers.0.lora_A.inner.weight": "sensor",
        "language.model.layers.0.mlp.down_proj.lora_A.sensor.weight": "sensor",
    }
    assert {name: modality_of(name) for name in modalities} == modalities
    assert adapter_of("language.model.layers.0.mlp.down_proj.weight") is None


def test_a_modality_from_outside_keeps_its_names_behind_a_beginning_of_its_own() -> None:
    name = file_name("sensor.layers.0.up.bias", "released")
    assert name == "model.embed_tokens_extend.sensor_embed.layers.0.up.bias"
    assert added_of(name) == "sensor"
    assert added_of(file_name("vision.projector.up.bias", "released")) is None
    with pytest.raises(CheckpointError, match="no name in the converted layout"):
        file_name("sensor.up.bias", "converted")
