"""Keys and values as bytes with scales: how they enter a cache and leave it, in plain torch."""

import math

import torch

from phi4.kernels.quantised import round_groups

GROUP_VALUES = 32


def group_values(head_dim: int) -> int:
    """Neighbouring values of a head that share a scale: 32, or 16 and less where heads are no multiple of that."""
    return math.gcd(head_dim, GROUP_VALUES)


def round_heads(heads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounds heads, [..., head_dim]: the bytes, int8 [..., head_dim], and their scales, float32 [..., groups]."""
    numbers, scales = round_groups(heads.float().unflatten(-1, (-1, group_values(heads.shape[-1]))))
    return numbers.flatten(-2).to(torch.int8), scales


def restore_heads(numbers: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The heads, [..., head_dim], that bytes of this shape and scales, [..., groups], stand for."""
    wide = numbers.float().unflatten(-1, (scales.shape[-1], -1)) * scales[..., None]
    return wide.flatten(-2).to(dtype)
