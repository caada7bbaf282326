"""LongRoPE: rotary position embeddings with a short and a long table, chosen per conversation."""

import math
from dataclasses import dataclass

import torch

from phi4.config import DecoderConfig
from phi4.inputs import Rotary
from phi4.kernels import elementwise
from phi4.kernels.instructions import can_run


@dataclass(frozen=True)
class RotaryTables:
    """The frequencies of one model, both tables.

    Attributes:
        inverse_frequencies: fp32, [2, rotary_dim / 2]; row 0 for short conversations, row 1 for long ones.
        scale: constant that multiplies cos and sin under both tables (facts sheet 1.4).
    """

    inverse_frequencies: torch.Tensor
    scale: float

    @classmethod
    def from_config(cls, config: DecoderConfig) -> "RotaryTables":
        """Computes both tables in fp32 on the CPU, even where the default device is `meta`."""
        exponents = torch.arange(0, config.rotary_dim, 2, device="cpu").float() / config.rotary_dim
        wavelengths = config.rope_theta**exponents
        if config.rope_scaling is None:
            return cls(inverse_frequencies=(1.0 / wavelengths).expand(2, -1), scale=1.0)
        factors = torch.tensor([config.rope_scaling.short_factor, config.rope_scaling.long_factor], device="cpu")
        return cls(inverse_frequencies=1.0 / (factors * wavelengths), scale=longrope_scale(config))

    def cos_sin(
        self, positions: torch.Tensor, rotary: list[Rotary], lengths: list[int], dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluates the tables for packed tokens.

        Args:
            positions: place of every token within its own conversation, [tokens].
            rotary: which table each segment uses.
            lengths: tokens in each segment, in packed order.
            dtype: what the angles are cast to after they were computed in fp32.

        Returns:
            cos and sin, each [tokens, 1, rotary_dim / 2].
        """
        device = positions.device
        rows = torch.tensor([int(table == "long") for table in rotary], device=device)
        per_segment = self.inverse_frequencies.to(device)[rows]
        per_token = per_segment.repeat_interleave(torch.tensor(lengths, device=device), dim=0)
        angles = (positions.float()[:, None] * per_token)[:, None, :]
        return (angles.cos() * self.scale).to(dtype), (angles.sin() * self.scale).to(dtype)


def longrope_scale(config: DecoderConfig) -> float:
    """The attention factor sqrt(1 + ln(max / original) / ln(original)): 1.1902... in the release (facts sheet 1.4)."""
    stretch = config.max_position_embeddings / config.original_max_position_embeddings
    if stretch <= 1.0:
        return 1.0
    return math.sqrt(1.0 + math.log(stretch) / math.log(config.original_max_position_embeddings))


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """What `apply_rotary` gives; in place where there is a kernel, so that `heads` must not be needed afterwards."""
    if can_run(heads, cos, sin):
        elementwise.rotate(heads, cos, sin)
        return heads
    return apply_rotary(heads, cos, sin)


def apply_rotary(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates the leading dimensions of every head, dimension d together with d + rotary_dim / 2.

    Args:
        heads: queries or keys, [tokens, heads, head_dim].
        cos: [tokens, 1, rotary_dim / 2].
        sin: [tokens, 1, rotary_dim / 2].

    Returns:
        [tokens, heads, head_dim]; dimensions beyond rotary_dim pass unchanged and unscaled.
    """
    half = cos.shape[-1]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
