"""Configurations of the models, read from the released `config.json` and kept as frozen dataclasses.

Field names follow Hugging Face where it has one. `ModelConfig.raw` keeps the file as it was, unknown keys included,
so that saving writes back what was read.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from phi4.errors import ConfigError

# The release hard-codes the ids of its two placeholders (facts sheet 2.1).
RELEASED_IMAGE_TOKEN_ID = 200010
RELEASED_AUDIO_TOKEN_ID = 200011

ADAPTED_LINEARS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")


@dataclass(frozen=True)
class LongRopeConfig:
    """The two factor lists of LongRoPE, one factor per rotary frequency."""

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a Llama- or Phi-3-shaped decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    partial_rotary_factor: float
    max_position_embeddings: int
    original_max_position_embeddings: int
    rope_scaling: LongRopeConfig | None
    tie_word_embeddings: bool

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads ({self.num_attention_heads}) is not a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.rope_scaling is not None:
            for name in ("short_factor", "long_factor"):
                count = len(getattr(self.rope_scaling, name))
                if count != self.rotary_dim // 2:
                    raise ConfigError(
                        f"rope_scaling.{name} has {count} values, but {self.rotary_dim} rotary dimensions "
                        f"(head_dim {self.head_dim} x partial_rotary_factor {self.partial_rotary_factor}) "
                        f"need {self.rotary_dim // 2}"
                    )

    @property
    def rotary_dim(self) -> int:
        """How many leading dimensions of each query and key head rotate."""
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def kv_values_per_token(self) -> int:
        """Values (not bytes) that one token adds to the key/value cache."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim

    def uses_long_rope(self, num_tokens: int) -> bool:
        """Whether a conversation of this many tokens takes the long factors (facts sheet 1.5)."""
        return self.rope_scaling is not None and num_tokens > self.original_max_position_embeddings


@dataclass(frozen=True)
class VisionConfig:
    """The SigLIP tower, its crops and its placeholder. Defaults are the release's (facts sheet 4.1)."""

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    image_size: int = 448
    patch_size: int = 14
    layer_norm_eps: float = 1e-6
    feature_layer: int = -2
    image_token_id: int = RELEASED_IMAGE_TOKEN_ID

    def __post_init__(self) -> None:
        if self.image_size % (2 * self.patch_size):
            raise ConfigError(
                f"image_size {self.image_size} px is not an even number of patches of {self.patch_size} px: "
                "patches are pooled two by two"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"vision hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} heads"
            )
        if not -self.num_hidden_layers <= self.feature_layer < 0:
            raise ConfigError(
                f"vision feature_layer {self.feature_layer} does not count back from the end of "
                f"{self.num_hidden_layers} layers"
            )

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a crop."""
        return self.image_size // self.patch_size

    @property
    def tokens_per_side(self) -> int:
        """Vectors along one side of a crop after the 2 x 2 average pooling."""
        return self.patches_per_side // 2

    @property
    def num_feature_layers(self) -> int:
        """How many layers run before the features are taken: hidden_states[-2] is the output of 26 of 27."""
        return self.num_hidden_layers + 1 + self.feature_layer


@dataclass(frozen=True)
class SpeechConfig:
    """The conformer encoder and its placeholder. Defaults are the release's (facts sheet 5.2)."""

    hidden_size: int = 1024
    intermediate_size: int = 1536
    num_blocks: int = 24
    num_attention_heads: int = 16
    kernel_size: int = 3
    conv_channels: int = 1024
    input_size: int = 80
    time_reduction: int = 8
    bias_max_distance: int = 500
    audio_token_id: int = RELEASED_AUDIO_TOKEN_ID

    def __post_init__(self) -> None:
        if self.time_reduction < 2 or self.time_reduction & (self.time_reduction - 1):
            raise ConfigError(f"time_reduction must be a power of two of at least 2, not {self.time_reduction}")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(f"attention_dim {self.hidden_size} is not a multiple of {self.num_attention_heads} heads")

    @property
    def num_subsampling_convolutions(self) -> int:
        """Stride-2 convolutions of the front end."""
        return int(math.log2(self.time_reduction))

    @property
    def subsampled_mels(self) -> int:
        """Mel channels left after the front end: 80 -> 40 -> 20 -> 10 in the release."""
        mels = self.input_size
        for _ in range(self.num_subsampling_convolutions):
            mels = (mels - 1) // 2 + 1
        return mels


@dataclass(frozen=True)
class AdapterConfig:
    """A LoRA on all four linears of every decoder layer (facts sheet 6.1)."""

    rank: int
    alpha: float
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        """What B(A(x)) is multiplied with before it is added."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class GenerationConfig:
    """Token ids that end an answer, from `generation_config.json` (facts sheet 1.1)."""

    eos_token_ids: tuple[int, ...]

    @classmethod
    def from_released(cls, raw: Mapping[str, Any]) -> "GenerationConfig":
        """Reads `eos_token_id`, one id or a list, from `generation_config.json` or `config.json`."""
        eos = raw.get("eos_token_id")
        ids = (eos,) if isinstance(eos, int) else tuple(eos or ())
        if not ids or not all(isinstance(token_id, int) for token_id in ids):
            raise ConfigError(f"eos_token_id must be a token id or a list of them, not {eos!r}")
        return cls(eos_token_ids=ids)


@dataclass(frozen=True)
class ModelConfig:
    """A decoder, the modalities added to it, and the file that it was read from."""

    decoder: DecoderConfig
    vision: VisionConfig | None = None
    speech: SpeechConfig | None = None
    adapters: Mapping[str, AdapterConfig] = field(default_factory=lambda: MappingProxyType({}))
    raw: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @classmethod
    def from_released(cls, raw: Mapping[str, Any]) -> "ModelConfig":
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
            return cls(decoder=decoder, raw=raw)
        return cls(
            decoder=decoder,
            vision=read_vision(raw),
            speech=read_speech(raw),
            adapters={name: read_adapter(raw, f"{name}_lora") for name in ("vision", "speech")},
            raw=raw,
        )


def _section(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = _required(raw, key)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} must be an object, not {value!r}")
    return value


def _size(raw: Mapping[str, Any], key: str) -> int:
    value = _required(raw, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key} must be a whole number of at least 1, not {value!r}")
    return value


def _number(raw: Mapping[str, Any], key: str) -> float:
    value = _required(raw, key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ConfigError(f"{key} must be a number of at least 0, not {value!r}")
    return float(value)


def _required(raw: Mapping[str, Any], key: str) -> Any:
    if key not in raw:
        raise ConfigError(f"config.json has no {key!r}")
    return raw[key]


def _expect(where: str, raw: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses values that name a variant of the architecture which does not exist here."""
    for key, value in expected.items():
        if key in raw and raw[key] != value:
            raise ConfigError(f"{where}.{key} is {raw[key]!r}; only {value!r} is supported")


def read_decoder(raw: Mapping[str, Any]) -> DecoderConfig:
    """Reads the language model's sizes; both `rope_scaling` and the newer `rope_parameters` are understood."""
    _expect("config", raw, {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "lm_head_bias": False})
    # Files leave keys out, or null, where a Llama-shaped model needs none.
    given = {key: value for key, value in raw.items() if value is not None}
    heads = _size(given, "num_attention_heads")
    context = _size(given, "max_position_embeddings")
    defaults = {
        "num_key_value_heads": heads,
        "head_dim": _size(given, "hidden_size") // heads,
        "original_max_position_embeddings": context,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
        "rope_type": "default",
        "sliding_window": context,
    }
    rope = {
        **_section({"rope_scaling": {}, **given}, "rope_scaling"),
        **_section({"rope_parameters": {}, **given}, "rope_parameters"),
    }
    sizes = {**defaults, **({"rope_type": rope["type"]} if "type" in rope else {}), **rope, **given}
    if sizes["rope_type"] not in ("default", "longrope", "su"):
        raise ConfigError(f"rope type is {sizes['rope_type']!r}; 'default' and 'longrope' are supported")
    if _size(sizes, "sliding_window") < context:
        raise ConfigError(f"sliding_window {sizes['sliding_window']} is smaller than the context of {context} tokens")
    return DecoderConfig(
        vocab_size=_size(sizes, "vocab_size"),
        hidden_size=_size(sizes, "hidden_size"),
        intermediate_size=_size(sizes, "intermediate_size"),
        num_hidden_layers=_size(sizes, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=_size(sizes, "num_key_value_heads"),
        head_dim=_size(sizes, "head_dim"),
        rms_norm_eps=_number(sizes, "rms_norm_eps"),
        rope_theta=_number(sizes, "rope_theta"),
        partial_rotary_factor=_number(sizes, "partial_rotary_factor"),
        max_position_embeddings=context,
        original_max_position_embeddings=_size(sizes, "original_max_position_embeddings"),
        rope_scaling=None if sizes["rope_type"] == "default" else _read_long_rope(rope),
        tie_word_embeddings=sizes.get("tie_word_embeddings", False) is True,
    )


def _read_long_rope(rope: Mapping[str, Any]) -> LongRopeConfig:
    return LongRopeConfig(short_factor=_factors(rope, "short_factor"), long_factor=_factors(rope, "long_factor"))


def _factors(rope: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = _required(rope, key)
    if not isinstance(values, list) or not all(isinstance(value, int | float) and value > 0 for value in values):
        raise ConfigError(f"{key} must be a list of numbers above 0")
    return tuple(map(float, values))


def read_vision(raw: Mapping[str, Any]) -> VisionConfig:
    """Reads the vision tower's sizes.

    The release fixes them in code and leaves `img_processor` null; other sizes stand in `img_processor` as a dict.
    """
    embedding = _section(_section(raw, "embd_layer"), "image_embd_layer")
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
    sizes = dict(raw.get("img_processor") or {})
    sizes["image_size"] = embedding.get("crop_size", VisionConfig.image_size)
    sizes["image_token_id"] = embedding.get("image_token_id", RELEASED_IMAGE_TOKEN_ID)
    unknown = set(sizes) - set(VisionConfig.__dataclass_fields__)
    if unknown:
        raise ConfigError(f"img_processor has unknown keys {sorted(unknown)}")
    if not all(isinstance(value, int | float) for value in sizes.values()):
        raise ConfigError(f"the sizes of the vision tower must be numbers, not {sizes}")
    return VisionConfig(**sizes)


def read_speech(raw: Mapping[str, Any]) -> SpeechConfig:
    """Reads the conformer's sizes from `audio_processor.config`."""
    encoder = _section(_section(raw, "audio_processor"), "config")
    width = _size(encoder, "attention_dim")
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
    embedding = _section(_section(raw, "embd_layer"), "audio_embd_layer")
    _expect(
        "audio_embd_layer",
        embedding,
        {"downsample_rate": 1, "projection_cls": "mlp", "use_conv_downsample": False, "use_qformer": False},
    )
    return SpeechConfig(
        hidden_size=width,
        intermediate_size=_size(encoder, "linear_units"),
        num_blocks=_size(encoder, "num_blocks"),
        num_attention_heads=_size(encoder, "attention_heads"),
        kernel_size=_size(encoder, "kernel_size"),
        conv_channels=_size(_section(encoder, "nemo_conv_settings"), "conv_channels"),
        input_size=_size(encoder, "input_size"),
        time_reduction=_size(encoder, "time_reduction"),
        bias_max_distance=_size(_section(encoder, "relative_attention_bias_args"), "t5_bias_max_distance"),
        audio_token_id=embedding.get("audio_token_id", RELEASED_AUDIO_TOKEN_ID),
    )


def read_adapter(raw: Mapping[str, Any], key: str) -> AdapterConfig:
    """Reads `vision_lora` or `speech_lora` and checks that its pattern names all four linears of a layer."""
    lora = _section(raw, key)
    pattern = _required(lora, "layer")
    try:
        missed = [name for name in ADAPTED_LINEARS if not re.fullmatch(pattern, f"layers.0.{name}")]
    except (re.error, TypeError) as error:
        raise ConfigError(f"{key}.layer is no pattern: {pattern!r} ({error})") from error
    if missed:
        raise ConfigError(f"{key}.layer does not match {missed}; adapters on a part of the linears are not supported")
    return AdapterConfig(
        rank=_size(lora, "r"), alpha=_number(lora, "lora_alpha"), dropout=_number({"dp": 0.0, **lora}, "dp")
    )
