"""Small models of transformers with the released LongRoPE factors, and what it means to agree with them."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from transformers import Phi4MultimodalConfig

VOCABULARY = 320
IMAGE_TOKEN, AUDIO_TOKEN = 300, 301
CROP_PX, PATCH_PX = 56, 14


@dataclass(frozen=True)
class Pair:
    """The same weights in transformers and here."""

    theirs: Any
    ours: Any


def rope_parameters() -> dict[str, Any]:
    """The released rotary settings as transformers 5 names them."""
    raw = json.loads((resources.files("phi4.checkpoint") / "presets" / "mini" / "config.json").read_text())
    return {
        "rope_type": "longrope",
        "rope_theta": raw["rope_theta"],
        "partial_rotary_factor": raw["partial_rotary_factor"],
        "short_factor": raw["rope_scaling"]["short_factor"],
        "long_factor": raw["rope_scaling"]["long_factor"],
        "original_max_position_embeddings": raw["original_max_position_embeddings"],
    }


def decoder_sizes() -> dict[str, Any]:
    """A decoder of two layers whose heads have the released 128 dimensions, so that the released factors fit."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_parameters": rope_parameters(),
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "attn_implementation": "eager",
    }


def native_config() -> Phi4MultimodalConfig:
    """Two decoder layers, three vision layers, two conformer blocks."""
    return Phi4MultimodalConfig(
        **decoder_sizes(),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": CROP_PX,
            "crop_size": CROP_PX,
            "patch_size": PATCH_PX,
            "image_token_id": IMAGE_TOKEN,
        },
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_blocks": 2,
            "num_attention_heads": 2,
            "ext_pw_out_channel": 32,
            "depthwise_separable_out_channel": 32,
            "nemo_conv_channels": 16,
            "bias_max_distance": 20,
            "audio_token_id": AUDIO_TOKEN,
        },
    )


def randomise(model: torch.nn.Module) -> None:
    """Gives every parameter values that matter: fresh models have zero biases, unit norms and zero LoRA B."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in [*model.named_parameters(), *model.named_buffers()]:
        if parameter.is_floating_point() and "inv_freq" not in name:
            noise = torch.randn(parameter.shape, generator=generator)
            centre = 1.0 if ("norm" in name and name.endswith("weight")) or "invstd" in name else 0.0
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.data.copy_(centre + scale * noise)


def assert_parity(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Largest absolute difference at most 2e-5 times the scale of the reference."""
    assert ours.shape == theirs.shape
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    assert difference <= 2e-5, f"differs by {difference:.2e} of the scale"
