"""The configuration of transformers' native `phi4_multimodal` and the released one, translated into each other."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from phi4.checkpoint.config_json import LINEAR_BITS_KEY
from phi4.config import AdapterConfig, ModelConfig, SpeechConfig, VisionConfig
from phi4.errors import ConfigError

# What the native class means by a key that its config.json leaves out. These are not the release's values
# (facts sheet 1.1 and trap 4).
NATIVE_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 200064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 199999,
    "eos_token_id": [199999, 200020],
    "pad_token_id": 199999,
}
NATIVE_VISION_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 448,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "crop_size": 448,
    "image_token_id": 200010,
    "feature_layer": -2,
}
NATIVE_AUDIO_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 1536,
    "num_blocks": 24,
    "num_attention_heads": 16,
    "activation": "swish",
    "chunk_size": -1,
    "left_chunk": 18,
    "dropout_rate": 0.0,
    "ext_pw_out_channel": 1024,
    "depthwise_separable_out_channel": 1024,
    "depthwise_multiplier": 1,
    "kernel_size": 3,
    "conv_activation": "swish",
    "input_size": 80,
    "conv_glu_type": "swish",
    "time_reduction": 8,
    "bias_max_distance": 1000,
    "bias_symmetric": False,
    "nemo_activation": "relu",
    "nemo_conv_channels": 1024,
    "downsample_rate": 1,
    "audio_token_id": 200011,
}

# Keys that only one of the two files has; what they say is translated below. Every other key is kept as it is.
_NATIVE_KEYS = {"model_type", "architectures", "vision_config", "audio_config", "rope_parameters", "dtype"}
_RELEASED_KEYS = {
    "_attn_implementation",
    "architectures",
    "audio_processor",
    "auto_map",
    "embd_layer",
    "eos_token_id",
    "img_processor",
    "model_type",
    "partial_rotary_factor",
    "rope_scaling",
    "rope_theta",
    "speech_lora",
    "torch_dtype",
    "vision_lora",
}
# Keys of `rope_parameters` that the released file has outside of `rope_scaling`, or under another name.
_MOVED_ROPE_KEYS = ("rope_type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
# The patterns of the release (facts sheet 6.1).
_ADAPTER_PATTERNS = {
    "vision": r"layers.*((self_attn\.(qkv_proj|o_proj))|(mlp\.(gate_up|down)_proj))",
    "speech": r"((layers.*self_attn\.(qkv|o)_proj)|(layers.*mlp\.(gate_up|down)_proj))",
}


def to_released(raw: Mapping[str, Any], adapters: Mapping[str, AdapterConfig]) -> dict[str, Any]:
    """Translates a native `config.json`, with the adapters found beside it, into the released form.

    Raises:
        ConfigError: a value names a variant that the release does not have.
    """
    native = {**NATIVE_DEFAULTS, **raw}
    vision = {**NATIVE_VISION_DEFAULTS, **(raw.get("vision_config") or {})}
    audio = {**NATIVE_AUDIO_DEFAULTS, **(raw.get("audio_config") or {})}
    rope = {"rope_type": "default", **(raw.get("rope_parameters") or raw.get("rope_scaling") or {})}
    _refuse_variants("vision_config", vision, {"hidden_act": "gelu_pytorch_tanh", "num_channels": 3})
    _refuse_variants("vision_config", vision, {"image_size": vision["crop_size"]})
    _refuse_variants("audio_config", audio, {"bias_symmetric": False, "nemo_activation": "relu"})
    return {
        **{key: value for key, value in native.items() if key not in _NATIVE_KEYS},
        "model_type": "phi4mm",
        "architectures": ["Phi4MMForCausalLM"],
        "torch_dtype": raw.get("dtype", raw.get("torch_dtype", "bfloat16")),
        "rope_theta": rope.get("rope_theta", raw.get("rope_theta", 10000.0)),
        "partial_rotary_factor": rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0)),
        "rope_scaling": _released_rope_scaling(rope),
        "img_processor": _released_image_processor(vision),
        "audio_processor": {"name": "cascades", "config": _released_audio_encoder(audio)},
        "embd_layer": _released_embedding_layer(vision, audio),
        **{f"{name}_lora": _released_adapter(name, adapter) for name, adapter in adapters.items()},
    }


def _refuse_variants(where: str, native: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for key, value in expected.items():
        if native[key] != value:
            raise ConfigError(f"{where}.{key} is {native[key]!r}; only {value!r} is supported")


def _released_rope_scaling(rope: Mapping[str, Any]) -> dict[str, Any] | None:
    rope_type = rope.get("type", rope["rope_type"])
    if rope_type == "default":
        return None
    return {**{key: value for key, value in rope.items() if key not in _MOVED_ROPE_KEYS}, "type": rope_type}


def _released_image_processor(vision: Mapping[str, Any]) -> dict[str, Any] | None:
    keys = set(VisionConfig.__dataclass_fields__) - {"image_size", "image_token_id", LINEAR_BITS_KEY}
    if all(vision[key] == VisionConfig.__dataclass_fields__[key].default for key in keys):
        return None
    return {key: vision[key] for key in sorted(keys)}


def _released_audio_encoder(audio: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "activation": audio["activation"],
        "attention_dim": audio["hidden_size"],
        "attention_heads": audio["num_attention_heads"],
        "batch_norm": False,
        "bias_in_glu": True,
        "causal": True,
        "chunk_size": audio["chunk_size"],
        "cnn_layer_norm": True,
        "conv_activation": audio["conv_activation"],
        "conv_glu_type": audio["conv_glu_type"],
        "depthwise_multiplier": audio["depthwise_multiplier"],
        # Saved by the converter under the release's misspelt name too, which the native class ignores (trap 26).
        "depthwise_seperable_out_channel": audio["depthwise_separable_out_channel"],
        "dropout_rate": audio["dropout_rate"],
        "encoder_embedding_config": {"input_size": audio["input_size"]},
        "ext_pw_kernel_size": 1,
        "ext_pw_out_channel": audio["ext_pw_out_channel"],
        "input_layer": "nemo_conv",
        "input_size": audio["input_size"],
        "kernel_size": audio["kernel_size"],
        "left_chunk": audio["left_chunk"],
        "linear_units": audio["intermediate_size"],
        "nemo_conv_settings": {"conv_channels": audio["nemo_conv_channels"]},
        "num_blocks": audio["num_blocks"],
        "relative_attention_bias_args": {"t5_bias_max_distance": audio["bias_max_distance"], "type": "t5"},
        "time_reduction": audio["time_reduction"],
    }


def _released_embedding_layer(vision: Mapping[str, Any], audio: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "embedding_cls": "image_audio",
        "audio_embd_layer": {
            "audio_token_id": audio["audio_token_id"],
            "compression_rate": audio["time_reduction"],
            "downsample_rate": audio["downsample_rate"],
            "embedding_cls": "audio",
            "projection_cls": "mlp",
            "use_conv_downsample": False,
            "use_qformer": False,
        },
        "image_embd_layer": {
            "crop_size": vision["crop_size"],
            "embedding_cls": "tune_image",
            "hd_transform_order": "sub_glb",
            "image_token_compression_cls": "avg_pool_2d",
            "image_token_id": vision["image_token_id"],
            "projection_cls": "mlp",
            "use_hd_transform": True,
            "with_learnable_separator": True,
        },
    }


def _released_adapter(name: str, adapter: AdapterConfig) -> dict[str, Any]:
    return {"dp": adapter.dropout, "layer": _ADAPTER_PATTERNS[name], "lora_alpha": adapter.alpha, "r": adapter.rank}


def to_native(config: ModelConfig, eos_token_ids: Sequence[int]) -> dict[str, Any]:
    """Translates a multimodal configuration into the `config.json` of transformers' native class.

    Args:
        config: a configuration with both modalities.
        eos_token_ids: what ends an answer; the native file carries all of them (facts sheet 6.2).

    Raises:
        ConfigError: a modality is missing; the native class always has both.
    """
    if config.vision is None or config.speech is None:
        raise ConfigError("the converted layout holds vision and speech; this model lacks one of them")
    decoder = config.decoder
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": decoder.rope_theta,
        "partial_rotary_factor": decoder.partial_rotary_factor,
    }
    if decoder.rope_scaling is not None:
        rope |= {
            "rope_type": "longrope",
            "long_factor": list(decoder.rope_scaling.long_factor),
            "short_factor": list(decoder.rope_scaling.short_factor),
            "original_max_position_embeddings": decoder.original_max_position_embeddings,
        }
    return {
        **{key: value for key, value in config.raw.items() if key not in _RELEASED_KEYS},
        "model_type": "phi4_multimodal",
        "architectures": ["Phi4MultimodalForCausalLM"],
        "dtype": config.raw.get("torch_dtype", "bfloat16"),
        "eos_token_id": list(eos_token_ids),
        "rope_parameters": rope,
        "vision_config": _native_vision(config.vision),
        "audio_config": _native_audio(config.speech),
    }


def _native_vision(vision: VisionConfig) -> dict[str, Any]:
    return {
        **NATIVE_VISION_DEFAULTS,
        **_sizes(vision),
        "crop_size": vision.image_size,
        "model_type": "phi4_multimodal_vision",
    }


def _sizes(encoder: VisionConfig | SpeechConfig) -> dict[str, Any]:
    """What a native file says of an encoder, which is never quantised there."""
    return {key: value for key, value in asdict(encoder).items() if key != LINEAR_BITS_KEY}


def _native_audio(speech: SpeechConfig) -> dict[str, Any]:
    return {
        **NATIVE_AUDIO_DEFAULTS,
        **{key: value for key, value in _sizes(speech).items() if key != "conv_channels"},
        "nemo_conv_channels": speech.conv_channels,
        "ext_pw_out_channel": speech.hidden_size,
        "depthwise_separable_out_channel": speech.hidden_size,
        "model_type": "phi4_multimodal_audio",
    }
