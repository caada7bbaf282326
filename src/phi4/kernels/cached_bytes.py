"""Keys and values as bytes with scales: how they enter a cache and leave it, in plain torch."""

import math

import torch

from phi4.kernels.quantised import round_groups

GROUP_VALUES = 32


def key_group(head_dim: int) -> int:
    """Neighbouring values of a key that share a scale: 32, or 16 and less where heads are no multiple of that."""
    return math.gcd(head_dim, GROUP_VALUES)


def scale_counts(head_dim: int) -> tuple[int, int]:
    """Scales of a key, one for each of its groups, and of a value, which has one: some channels of keys are large."""
    return head_dim // key_group(head_dim), 1


def round_heads(heads: torch.Tensor, scales_of_head: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounds heads, [..., head_dim]: bytes, int8 [..., head_dim], and scales, float32 [..., scales_of_head]."""
    numbers, scales = round_groups(heads.float().unflatten(-1, (scales_of_head, -1)))
    return numbers.flatten(-2).to(torch.int8), scales


def restore_heads(numbers: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The heads, [..., head_dim], that bytes of this shape and scales, [..., groups], stand for."""
    wide = numbers.float().unflatten(-1, (scales.shape[-1], -1)) * scales[..., None]
    return wide.flatten(-2).to(dtype)
