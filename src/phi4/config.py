"""Configurations of the models as frozen dataclasses; field names follow Hugging Face where it has one.

`checkpoint/config_json.py` reads them. `ModelConfig.raw` keeps the file as it was, unknown keys included, so that
saving writes back what was read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from phi4.errors import ConfigError
from phi4.modality import AddedModality

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
class QuantisationConfig:
    """How the weights of a quantised language model are stored.

    Attributes:
        linear_bits: 4 or 8 for each of `ADAPTED_LINEARS`, in every layer in turn.
        table_bits: 4 or 8, of the token embedding and the head.
        base_digest: of the language model that was quantised; packs trained on it fit.
        codes_digest: of its codes, steps and scales as they were written; None if an earlier version wrote them.
    """

    linear_bits: Mapping[str, tuple[int, ...]]
    table_bits: int
    base_digest: str
    codes_digest: str | None = None


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
    quantisation: QuantisationConfig | None = None

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
    """The SigLIP tower, its crops and its placeholder. Defaults are the release's (facts sheet 4.1).

    `linear_bits` is 8 where the linears of the layers are quantised, else None.
    """

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    image_size: int = 448
    patch_size: int = 14
    layer_norm_eps: float = 1e-6
    feature_layer: int = -2
    image_token_id: int = RELEASED_IMAGE_TOKEN_ID
    linear_bits: int | None = None

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
    """The conformer encoder and its placeholder. Defaults are the release's (facts sheet 5.2).

    `linear_bits` is 8 where the linears of the blocks are quantised, else None.
    """

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
    linear_bits: int | None = None

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
    """A LoRA on all four linears of every decoder layer (facts sheet 6.1); 8 bits if it is quantised, else None."""

    rank: int
    alpha: float
    dropout: float = 0.0
    bits: int | None = None

    @property
    def scale(self) -> float:
        """What B(A(x)) is multiplied with before it is added."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class GenerationConfig:
    """Token ids that end an answer, from `generation_config.json` (facts sheet 1.1)."""

    eos_token_ids: tuple[int, ...]

    @property
    def prefix_id(self) -> int:
        """The token in front of a text that nothing comes before: the last end token, `<|endoftext|>` at Phi-4."""
        return self.eos_token_ids[-1]


@dataclass(frozen=True)
class ModelConfig:
    """A decoder, the modalities added to it, and the file that it was read from.

    Attributes:
        decoder: the language model.
        vision: None if the model has no vision.
        speech: None if the model has no speech.
        adapters: by the name of their modality.
        raw: the file.
        added: modalities from outside the package, by name.
    """

    decoder: DecoderConfig
    vision: VisionConfig | None = None
    speech: SpeechConfig | None = None
    adapters: Mapping[str, AdapterConfig] = field(default_factory=lambda: MappingProxyType({}))
    raw: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    added: Mapping[str, AddedModality] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def quantised_modalities(self) -> tuple[str, ...]:
        """Those whose encoder or adapter has weights of 8 bits."""
        bits = {
            "vision": self.vision and self.vision.linear_bits,
            "speech": self.speech and self.speech.linear_bits,
        }
        return tuple(name for name, adapter in self.adapters.items() if adapter.bits or bits.get(name))
