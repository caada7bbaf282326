"""Rounds weight matrices to codes of 4 or 8 bits, packed as the kernels read them."""

import torch

from phi4.kernels.quantised import BLOCK_OUTPUTS, GROUP_INPUTS, MIDDLE, PackedWeight

# Largest code of 4 bits, and the largest step: 15 steps must fit a byte.
MOST, LARGEST_STEP = 15, 17
# Ranges that are tried, relative to the one from the smallest weight of a group to the largest.
_RANGES = (0.75, 0.82, 0.89, 0.96, 1.0)
# Weights that are rounded together: what the search keeps of them stays in the caches.
_ROUNDED_TOGETHER = 2**18


def round_weight(weight: torch.Tensor, bits: int) -> PackedWeight:
    """Rounds a matrix of [outputs, inputs] to codes of 4 or 8 bits, some outputs at a time."""
    rows = max(1, _ROUNDED_TOGETHER // weight.shape[1] // BLOCK_OUTPUTS) * BLOCK_OUTPUTS
    round_some = round_to_four if bits == 4 else round_to_eight
    parts = [round_some(part.float()) for part in weight.split(rows)]
    steps = None if bits == 8 else torch.cat([part.steps for part in parts if part.steps is not None])
    return PackedWeight(torch.cat([part.codes for part in parts]), steps, torch.cat([part.scales for part in parts]))


def round_to_eight(weight: torch.Tensor) -> PackedWeight:
    """Rounds [outputs, inputs] to 255 values around zero, with a scale for each output."""
    scales = _scales(weight.abs().amax(1))
    numbers = torch.round(weight / scales[:, None]) + MIDDLE
    return PackedWeight(_interleave(numbers), None, scales)


def round_to_four(weight: torch.Tensor) -> PackedWeight:
    """Rounds [outputs, inputs] to 16 values in each group of 32 inputs, with the least squared error that was found.

    A group's values begin at a lowest one and are equally far from each other; both are whole numbers of the output's
    scale, so that every value is a whole number of 8 bits.
    """
    groups = weight.unflatten(1, (-1, GROUP_INPUTS))
    step, lowest = best_lines(groups)
    scales = output_scales(step, lowest)
    scaled, step, lowest = (part / scales[:, None, None] for part in (groups, step, lowest))
    whole_step, whole_lowest = best_whole_lines(scaled, step, lowest)
    codes = ((scaled - whole_lowest) / whole_step).round().clamp(0, MOST)
    return pack_four(codes.flatten(1), torch.cat((whole_step, whole_lowest), dim=2), scales)


def output_scales(step: torch.Tensor, lowest: torch.Tensor) -> torch.Tensor:
    """The scale of every output, [outputs], with which all its groups' values fit 8 bits.

    Args:
        step: of each group, [outputs, groups, 1].
        lowest: value of each group, likewise.
    """
    return _scales(torch.maximum(lowest.abs(), (lowest + MOST * step).abs()).amax((1, 2)))


def pack_four(codes: torch.Tensor, lines: torch.Tensor, scales: torch.Tensor) -> PackedWeight:
    """Lays codes of 4 bits out as the kernels read them.

    Args:
        codes: whole numbers from 0 to 15, [outputs, inputs].
        lines: whole step and lowest value of each group, [outputs, groups, 2].
        scales: [outputs].
    """
    pairs = _interleave(codes).unflatten(2, (4, 2))
    steps = lines + torch.tensor([0.0, MIDDLE])
    return PackedWeight(pairs[:, :, :, 0] | pairs[:, :, :, 1] << 4, _interleave_steps(steps), scales)


def _scales(largest: torch.Tensor) -> torch.Tensor:
    """The scale of every output, from what 127 shall stand for; 1 for outputs without weights."""
    return torch.where(largest > 0, largest / (MIDDLE - 1), 1.0)


def best_lines(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The step and the lowest value of each group, [outputs, groups, 1], that give the least squared error."""
    smallest, largest = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    center, mean = (smallest + largest) / 2, groups.mean(-1, keepdim=True)
    best = torch.full_like(center, torch.inf)
    best_step, best_lowest = torch.zeros_like(center), center
    for share in _RANGES:
        step = ((largest - smallest) * (share / MOST)).clamp_min(torch.finfo(torch.float32).tiny)
        codes = ((groups - center) / step + MOST / 2).round_().clamp_(0, MOST)
        # The line through these codes with the least error, and its error with codes of its own.
        centered = codes - codes.mean(-1, keepdim=True)
        square = centered.square().sum(-1, keepdim=True).clamp_min(1e-12)
        step = ((centered * (groups - mean)).sum(-1, keepdim=True) / square).clamp_min(step / 4)
        lowest = mean - step * codes.mean(-1, keepdim=True)
        error = _errors(groups, step, lowest)
        better = error < best
        best = torch.where(better, error, best)
        best_step, best_lowest = torch.where(better, step, best_step), torch.where(better, lowest, best_lowest)
    return best_step, best_lowest


def best_whole_lines(
    scaled: torch.Tensor, step: torch.Tensor, lowest: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in whole numbers, near the lines given; all is in units of the outputs' scales."""
    best = torch.full_like(step, torch.inf)
    best_step, best_lowest = torch.ones_like(step), torch.zeros_like(step)
    for more in (0, 1, 2):
        whole_step = (step.floor() + more).clamp(1, LARGEST_STEP)
        whole_lowest = _into_byte(lowest + (step - whole_step) * (MOST / 2), whole_step)
        codes = ((scaled - whole_lowest) / whole_step).round_().clamp_(0, MOST)
        whole_lowest = _into_byte((scaled - whole_step * codes).mean(-1, keepdim=True), whole_step)
        error = _errors(scaled, whole_step, whole_lowest)
        better = error < best
        best = torch.where(better, error, best)
        best_step = torch.where(better, whole_step, best_step)
        best_lowest = torch.where(better, whole_lowest, best_lowest)
    return best_step, best_lowest


def _into_byte(lowest: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """The whole number next to `lowest` from which 15 steps stay within 8 bits."""
    return torch.minimum(lowest.round().clamp_min(-MIDDLE), MIDDLE - 1 - MOST * step)


def _errors(groups: torch.Tensor, step: torch.Tensor, lowest: torch.Tensor) -> torch.Tensor:
    """Sums of squared errors, [outputs, groups, 1]."""
    codes = ((groups - lowest) / step).round_().clamp_(0, MOST)
    return (codes.mul_(step).add_(lowest).sub_(groups)).square_().sum(-1, keepdim=True)


def _interleave(numbers: torch.Tensor) -> torch.Tensor:
    """[outputs, inputs] -> uint8 [blocks, groups, 8 quads, 16 outputs, 4 inputs]."""
    apart = numbers.to(torch.uint8).unflatten(0, (-1, BLOCK_OUTPUTS)).unflatten(2, (-1, 8, 4))
    return apart.permute(0, 2, 3, 1, 4).contiguous()


def _interleave_steps(steps: torch.Tensor) -> torch.Tensor:
    """[outputs, groups, 2] -> uint8 [blocks, groups, 2, 16 outputs]."""
    return steps.to(torch.uint8).unflatten(0, (-1, BLOCK_OUTPUTS)).permute(0, 2, 3, 1).contiguous()
