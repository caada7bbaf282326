"""Rounding that passes each error on: the weights behind it make up for it on the inputs that a text gives.

The method is GPTQ's (arXiv 2210.17323), with the groups, steps and whole numbers of `rounding.py`.
"""

import torch

from phi4.checkpoint.rounding import (
    MOST,
    best_lines,
    best_whole_lines,
    output_scales,
    pack_four,
)
from phi4.kernels.quantised import GROUP_INPUTS, PackedWeight

# Of the mean moment, added to all: inputs that the text seldom uses must not take over every error.
DAMPING = 0.01
# Outputs that are rounded together: fp32 of 4,096 x 8,192 weights takes 134 MB.
OUTPUTS_TOGETHER = 4096


def round_with_feedback(weight: torch.Tensor, moments: torch.Tensor) -> PackedWeight:
    """Rounds a matrix to codes of 4 bits for the inputs that it meets.

    Args:
        weight: [outputs, inputs].
        moments: second moments of its inputs, fp32 [inputs, inputs].
    """
    factor = error_factor(moments)
    parts = [_round_some(part.float(), factor) for part in weight.split(OUTPUTS_TOGETHER)]
    steps = torch.cat([part.steps for part in parts if part.steps is not None])
    return PackedWeight(torch.cat([part.codes for part in parts]), steps, torch.cat([part.scales for part in parts]))


def error_factor(moments: torch.Tensor) -> torch.Tensor:
    """How an error in one weight is passed on: the upper Cholesky factor of the inverse moments, fp32.

    Row j, over its own entry j, says by how much the weights behind input j make up for an error there.
    """
    wide = moments.double()
    wide.diagonal().add_(DAMPING * wide.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(wide))
    return torch.linalg.cholesky(inverse, upper=True).float()


def _round_some(weight: torch.Tensor, factor: torch.Tensor) -> PackedWeight:
    scales = output_scales(*best_lines(weight.unflatten(1, (-1, GROUP_INPUTS))))
    remaining = weight / scales[:, None]
    codes = torch.empty_like(weight)
    steps = []
    for first in range(0, weight.shape[1], GROUP_INPUTS):
        behind = first + GROUP_INPUTS
        group = remaining[:, first:behind]
        step, lowest = (part[:, 0] for part in best_whole_lines(group[:, None], *best_lines(group[:, None])))
        errors = torch.empty_like(group)
        for place in range(GROUP_INPUTS):
            own = factor[first + place]
            exact = group[:, place, None]
            code = ((exact - lowest) / step).round().clamp(0, MOST)
            codes[:, first + place, None] = code
            errors[:, place, None] = (exact - (step * code + lowest)) / own[first + place]
            group[:, place + 1 :] -= errors[:, place, None] * own[first + place + 1 : behind]
        remaining[:, behind:] -= errors @ factor[first:behind, behind:]
        steps.append(torch.cat((step, lowest), dim=1))
    return pack_four(codes, torch.stack(steps, dim=1), scales)
