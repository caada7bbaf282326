"""Reads the released `config.json` and `generation_config.json`, and refuses what does not exist here."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from phi4.checkpoint.json_values import num_layers, number, required, section, size
from phi4.config import (
    ADAPTED_LINEARS,
    RELEASED_AUDIO_TOKEN_ID,
    RELEASED_IMAGE_TOKEN_ID,
    AdapterConfig,
    DecoderConfig,
    GenerationConfig,
    LongRopeConfig,
    ModelConfig,
    QuantisationConfig,
    SpeechConfig,
    VisionConfig,
)
from phi4.errors import ConfigError

# What may stand in `rope_scaling` or `rope_parameters`; any other key asks for other angles than these.
_ROPE_KEYS = {
    "factor",
    "long_factor",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
    "rope_type",
    "short_factor",
    "type",
}

QUANTISATION_KEY = "quantization_config"
QUANTISATION_METHOD = {"quant_method": "phi4", "version": 1}
# The token embedding, and the head where it is another matrix.
TABLE = "embed_tokens"
# Of an encoder or an adapter, beside its sizes, so that it goes with its modality into a pack.
LINEAR_BITS_KEY = "linear_bits"


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Reads the `config.json` of Phi-4-Mini (`phi3`) or Phi-4-Multimodal (`phi4mm`).

    Raises:
        ConfigError: the model type is another one, a key is missing or a value is not supported.
    """
    model_type = raw.get("model_type")
    if model_type not in ("phi3", "phi4mm"):
        raise ConfigError(
            f"model_type is {model_type!r}; phi4 reads 'phi3' (Phi-4-Mini) and 'phi4mm' (Phi-4-Multimodal)"
        )
    decoder = read_decoder(raw)
    if model_type == "phi3":
        return ModelConfig(decoder=decoder, raw=raw)
    return ModelConfig(
        decoder=decoder,
        vision=read_vision(raw),
        speech=read_speech(raw),
        adapters={name: read_adapter(raw, f"{name}_lora") for name in ("vision", "speech")},
        raw=raw,
    )


def read_generation(raw: Mapping[str, Any]) -> GenerationConfig:
    """Reads `eos_token_id`, one id or a list, from `generation_config.json` or `config.json`.

    Raises:
        ConfigError: there is none, or it holds something else than ids.
    """
    eos = raw.get("eos_token_id")
    ids: list[Any] = eos if isinstance(eos, list) else [eos]
    if not ids or not all(type(token_id) is int and token_id >= 0 for token_id in ids):
        raise ConfigError(f"eos_token_id must be a token id or a list of them, not {eos!r}")
    return GenerationConfig(eos_token_ids=tuple(ids))


def read_decoder(raw: Mapping[str, Any]) -> DecoderConfig:
    """Reads the language model's sizes; both `rope_scaling` and the newer `rope_parameters` are understood."""
    _expect("config", raw, {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "lm_head_bias": False})
    # Files leave keys out, or null, where a Llama-shaped model needs none.
    given = {key: value for key, value in raw.items() if value is not None}
    heads = size(given, "num_attention_heads")
    context = size(given, "max_position_embeddings")
    defaults = {
        "num_key_value_heads": heads,
        "head_dim": size(given, "hidden_size") // heads,
        "original_max_position_embeddings": context,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
        "rope_type": "default",
        "sliding_window": context,
    }
    rope = _read_rope(given)
    sizes = {**defaults, **({"rope_type": rope["type"]} if "type" in rope else {}), **rope, **given}
    if sizes["rope_type"] not in ("default", "longrope", "su"):
        raise ConfigError(f"rope type is {sizes['rope_type']!r}; 'default' and 'longrope' are supported")
    if size(sizes, "sliding_window") < context:
        raise ConfigError(f"sliding_window {sizes['sliding_window']} is smaller than the context of {context} tokens")
    layers = num_layers(sizes, "num_hidden_layers")
    decoder = DecoderConfig(
        vocab_size=size(sizes, "vocab_size"),
        hidden_size=size(sizes, "hidden_size"),
        intermediate_size=size(sizes, "intermediate_size"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=size(sizes, "num_key_value_heads"),
        head_dim=size(sizes, "head_dim"),
        rms_norm_eps=number(sizes, "rms_norm_eps"),
        rope_theta=number(sizes, "rope_theta"),
        partial_rotary_factor=number(sizes, "partial_rotary_factor"),
        max_position_embeddings=context,
        original_max_position_embeddings=size(sizes, "original_max_position_embeddings"),
        rope_scaling=None if sizes["rope_type"] == "default" else _read_long_rope(rope),
        tie_word_embeddings=sizes.get("tie_word_embeddings", False) is True,
        quantisation=read_quantisation(given, layers) if QUANTISATION_KEY in given else None,
    )
    _check_rope(rope, decoder)
    return decoder


def read_quantisation(raw: Mapping[str, Any], num_layers: int) -> QuantisationConfig:
    """Reads `quantization_config`, as `write_quantisation` writes it, of a model with so many layers.

    Raises:
        ConfigError: another program quantised the model, or bits or digest are missing or wrong.
    """
    values = section(raw, QUANTISATION_KEY)
    method = {key: values.get(key) for key in QUANTISATION_METHOD}
    if method != QUANTISATION_METHOD:
        raise ConfigError(
            f"{QUANTISATION_KEY} says {method}; only {QUANTISATION_METHOD} is supported: "
            "take the original weights and quantise them with `phi4 quantize`, or update phi4 if its version is newer"
        )
    bits = section(values, "bits")
    linear_bits = {name: _of_layers(bits.get(name), num_layers) for name in ADAPTED_LINEARS}
    given = {**linear_bits, TABLE: (bits.get(TABLE),)}
    wrong = {name: bits.get(name) for name, own in given.items() if not own or any(one not in (4, 8) for one in own)}
    if wrong:
        raise ConfigError(
            f"{QUANTISATION_KEY}.bits must be 4 or 8 for {TABLE} and every linear, or a list of these for its "
            f"{num_layers} layers, not {wrong}"
        )
    return QuantisationConfig(
        {name: tuple(map(int, own)) for name, own in linear_bits.items()},
        int(bits[TABLE]),
        _digest(values, "base_digest"),
        _digest(values, "codes_digest") if "codes_digest" in values else None,
    )


def _digest(values: Mapping[str, Any], key: str) -> str:
    digest = required(values, key)
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ConfigError(f"{QUANTISATION_KEY}.{key} must be 64 hexadecimal digits, not {digest!r}")
    return digest


def _of_layers(bits: Any, num_layers: int) -> tuple[Any, ...]:
    """What is said of every layer: one thing of all, or a list; nothing for a list of another length."""
    own = tuple(bits) if isinstance(bits, list) else (bits,) * num_layers
    return own if len(own) == num_layers else ()


def write_quantisation(quantisation: QuantisationConfig) -> dict[str, Any]:
    """What `config.json` says of a quantised model."""
    linears = {name: bits[0] if len(set(bits)) == 1 else list(bits) for name, bits in quantisation.linear_bits.items()}
    bits = {**linears, TABLE: quantisation.table_bits}
    digests = {"base_digest": quantisation.base_digest, "codes_digest": quantisation.codes_digest}
    noted = {key: digest for key, digest in digests.items() if digest is not None}
    return {QUANTISATION_KEY: {**QUANTISATION_METHOD, "bits": bits, **noted}}


def _read_rope(given: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        **section({"rope_scaling": {}, **given}, "rope_scaling"),
        **section({"rope_parameters": {}, **given}, "rope_parameters"),
    }
    return {key: value for key, value in both.items() if value is not None}


def _check_rope(rope: Mapping[str, Any], decoder: DecoderConfig) -> None:
    """Refuses keys that would change the angles, and rotary dimensions that are not pairs within a head."""
    unknown = sorted(rope.keys() - _ROPE_KEYS)
    if unknown:
        raise ConfigError(f"rope_scaling has {unknown}; only {sorted(_ROPE_KEYS)} are supported")
    factor = decoder.max_position_embeddings / decoder.original_max_position_embeddings
    if "factor" in rope and number(rope, "factor") != factor:
        raise ConfigError(
            f"rope_scaling.factor is {rope['factor']}; only max_position_embeddings / "
            f"original_max_position_embeddings = {factor} is supported"
        )
    if not 0 < decoder.partial_rotary_factor <= 1 or decoder.rotary_dim < 2 or decoder.rotary_dim % 2:
        raise ConfigError(
            f"head_dim {decoder.head_dim} x partial_rotary_factor {decoder.partial_rotary_factor} gives "
            f"{decoder.rotary_dim} rotary dimensions; they must be an even number within the head"
        )


def _read_long_rope(rope: Mapping[str, Any]) -> LongRopeConfig:
    return LongRopeConfig(short_factor=_factors(rope, "short_factor"), long_factor=_factors(rope, "long_factor"))


def _factors(rope: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = required(rope, key)
    if not isinstance(values, list) or not all(isinstance(value, int | float) and value > 0 for value in values):
        raise ConfigError(f"{key} must be a list of numbers above 0")
    return tuple(map(float, values))


def read_vision(raw: Mapping[str, Any]) -> VisionConfig:
    """Reads the vision tower's sizes.

    The release fixes them in code and leaves `img_processor` null; other sizes stand in `img_processor` as a dict.
    """
    embedding = section(section(raw, "embd_layer"), "image_embd_layer")
    _expect(
        "image_embd_layer",
        embedding,
        {
            "hd_transform_order": "sub_glb",
            "image_token_compression_cls": "avg_pool_2d",
            "projection_cls": "mlp",
            "use_hd_transform": True,
            "with_learnable_separator": True,
        },
    )
    given = section(raw, "img_processor") if raw.get("img_processor") is not None else {}
    sizes = {
        **asdict(VisionConfig()),
        **given,
        "image_size": embedding.get("crop_size", VisionConfig.image_size),
        "image_token_id": embedding.get("image_token_id", RELEASED_IMAGE_TOKEN_ID),
    }
    unknown = set(given) - set(VisionConfig.__dataclass_fields__)
    if unknown:
        raise ConfigError(f"img_processor has unknown keys {sorted(unknown)}")
    return VisionConfig(
        hidden_size=size(sizes, "hidden_size"),
        intermediate_size=size(sizes, "intermediate_size"),
        num_hidden_layers=num_layers(sizes, "num_hidden_layers"),
        num_attention_heads=size(sizes, "num_attention_heads"),
        image_size=size(sizes, "image_size"),
        patch_size=size(sizes, "patch_size"),
        layer_norm_eps=number(sizes, "layer_norm_eps"),
        feature_layer=_feature_layer(sizes),
        image_token_id=size(sizes, "image_token_id", at_least=0),
        linear_bits=_linear_bits(given),
    )


def _linear_bits(given: Mapping[str, Any]) -> int | None:
    """Bits of the linears of an encoder or adapter, if they are quantised."""
    bits = given.get(LINEAR_BITS_KEY)
    if bits not in (None, 8):
        raise ConfigError(f"{LINEAR_BITS_KEY} of an encoder or adapter is {bits!r}; only 8 is supported, or nothing")
    return None if bits is None else 8


def write_adapter_bits(raw: Mapping[str, Any], bits: int) -> dict[str, Any]:
    """What `config.json` says of adapters that are quantised, beside what it says of them already."""
    return {key: {**raw[key], LINEAR_BITS_KEY: bits} for key in ("vision_lora", "speech_lora") if key in raw}


def write_encoder_bits(raw: Mapping[str, Any], bits: int) -> dict[str, Any]:
    """What `config.json` says of encoders whose linears are quantised, beside what it says of them already."""
    said: dict[str, Any] = {}
    if "embd_layer" in raw and "image_embd_layer" in raw["embd_layer"]:
        said["img_processor"] = {**(raw.get("img_processor") or {}), LINEAR_BITS_KEY: bits}
    if "audio_processor" in raw:
        encoder = {**raw["audio_processor"]["config"], LINEAR_BITS_KEY: bits}
        said["audio_processor"] = {**raw["audio_processor"], "config": encoder}
    return said


def _feature_layer(sizes: Mapping[str, Any]) -> int:
    layer = sizes["feature_layer"]
    if type(layer) is not int or layer >= 0:
        raise ConfigError(f"feature_layer must be a whole number below 0, counted from the last layer, not {layer!r}")
    return layer


def read_speech(raw: Mapping[str, Any]) -> SpeechConfig:
    """Reads the conformer's sizes from `audio_processor.config`."""
    encoder = section(section(raw, "audio_processor"), "config")
    width = size(encoder, "attention_dim")
    _expect(
        "audio_processor.config",
        encoder,
        {
            "activation": "swish",
            "conv_activation": "swish",
            "conv_glu_type": "swish",
            "bias_in_glu": True,
            "causal": True,
            "batch_norm": False,
            "cnn_layer_norm": True,
            "chunk_size": -1,
            "depthwise_multiplier": 1,
            "ext_pw_kernel_size": 1,
            "ext_pw_out_channel": width,
            "depthwise_seperable_out_channel": width,
            "input_layer": "nemo_conv",
        },
    )
    embedding = section(section(raw, "embd_layer"), "audio_embd_layer")
    _expect(
        "audio_embd_layer",
        embedding,
        {"downsample_rate": 1, "projection_cls": "mlp", "use_conv_downsample": False, "use_qformer": False},
    )
    return SpeechConfig(
        hidden_size=width,
        intermediate_size=size(encoder, "linear_units"),
        num_blocks=num_layers(encoder, "num_blocks"),
        num_attention_heads=size(encoder, "attention_heads"),
        kernel_size=size(encoder, "kernel_size"),
        conv_channels=size(section(encoder, "nemo_conv_settings"), "conv_channels"),
        input_size=size(encoder, "input_size"),
        time_reduction=size(encoder, "time_reduction"),
        bias_max_distance=size(section(encoder, "relative_attention_bias_args"), "t5_bias_max_distance"),
        audio_token_id=size({"audio_token_id": RELEASED_AUDIO_TOKEN_ID, **embedding}, "audio_token_id", at_least=0),
        linear_bits=_linear_bits(encoder),
    )


def read_adapter(raw: Mapping[str, Any], key: str) -> AdapterConfig:
    """Reads `vision_lora` or `speech_lora` and checks that its pattern names all four linears of a layer."""
    lora = section(raw, key)
    pattern = required(lora, "layer")
    try:
        missed = [name for name in ADAPTED_LINEARS if not re.fullmatch(pattern, f"layers.0.{name}")]
    except (re.error, TypeError) as error:
        raise ConfigError(f"{key}.layer is no pattern: {pattern!r} ({error})") from error
    if missed:
        raise ConfigError(f"{key}.layer does not match {missed}; adapters on a part of the linears are not supported")
    return AdapterConfig(
        rank=size(lora, "r"),
        alpha=number(lora, "lora_alpha"),
        dropout=number({"dp": 0.0, **lora}, "dp"),
        bits=_linear_bits(lora),
    )


def _expect(where: str, raw: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses values that name a variant of the architecture which does not exist here."""
    for key, value in expected.items():
        if key in raw and raw[key] != value:
            raise ConfigError(f"{where}.{key} is {raw[key]!r}; only {value!r} is supported")
