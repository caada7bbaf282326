"""The product of packed rows with a weight matrix of 4 or 8 bits: the same bits in any company, at any level.

A weight is `scale[output] * value`, where value is a whole number from -128 to 127. Codes of 8 bits are value + 128.
Codes of 4 bits share a step and a lowest value in each group of 32 inputs: value = step * code + lowest - 128. Rows are
rounded to 8 bits with a scale for each span of four groups; the last span may be shorter. Inside a span all sums are
whole numbers, which no order changes; the spans' sums are added up in their order, each product and sum rounded by
itself.

The tensors are stored as the kernels read them: 16 outputs stand beside each other, and of those 4 inputs. Of 4 bits,
the lower half of a byte is an input of one such quad, the upper half one of the next.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from phi4.kernels.instructions import LEVELS, NATIVE, address, can_run, describe, is_aligned

GROUP_INPUTS = 32
BLOCK_OUTPUTS = 16
# Inputs that share a scale of the rows.
SPAN_INPUTS = 4 * GROUP_INPUTS
MIDDLE = 128
LARGEST_BYTE = 255
# As in rounding.h: below it, a span of a row is zero.
_SMALLEST = 1e-30
# Where the tensors of a weight are, 0 for one that is not there; and how many blocks of outputs.
MatrixAddresses = tuple[int, int, int, int]


@dataclass(frozen=True)
class PackedWeight:
    """A weight matrix of [outputs, inputs] as it is stored.

    Attributes:
        codes: uint8 [outputs / 16, inputs / 32, quads, 16, 4]; 8 quads of 8 bits, or 4 that hold two of 4 bits.
        steps: uint8 [outputs / 16, inputs / 32, 2, 16], the step and the lowest value; None for codes of 8 bits.
        scales: float32 [outputs].
    """

    codes: torch.Tensor
    steps: torch.Tensor | None
    scales: torch.Tensor

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs; none of codes that have not even those dimensions."""
        blocks, groups = (*self.codes.shape, 0, 0)[:2]
        return blocks * BLOCK_OUTPUTS, groups * GROUP_INPUTS

    @cached_property
    def fits(self) -> bool:
        """Whether the tensors are of the kinds and shapes that they must have, aligned, without gaps, on one device."""
        codes, steps, scales = self.codes, self.steps, self.scales
        if codes.dim() != 5 or not codes.numel():
            return False
        blocks, groups = codes.shape[:2]
        return (
            codes.shape == (blocks, groups, 8 if steps is None else 4, BLOCK_OUTPUTS, 4)
            and is_whole(codes, torch.uint8, codes.device)
            and scales.shape == (blocks * BLOCK_OUTPUTS,)
            and is_whole(scales, torch.float32, codes.device)
            and (
                steps is None
                or (steps.shape == (blocks, groups, 2, BLOCK_OUTPUTS) and is_whole(steps, torch.uint8, codes.device))
            )
        )

    @cached_property
    def addresses(self) -> MatrixAddresses:
        """What the kernels take."""
        return self.codes.data_ptr(), address(self.steps), self.scales.data_ptr(), self.codes.shape[0]

    def values(self, first_block: int, last_block: int) -> torch.Tensor:
        """The whole numbers of some blocks of outputs, as float32 [outputs, inputs], without their scales."""
        codes = self.codes[first_block:last_block]
        if self.steps is None:
            numbers = codes.float() - MIDDLE
        else:
            numbers = unpack_nibbles(codes).float()
            step, lowest = self.steps[first_block:last_block, :, :, None, :, None].float().unbind(2)
            numbers = step * numbers + (lowest - MIDDLE)
        return numbers.permute(0, 3, 1, 2, 4).reshape(-1, self.shape[1])

    def blocks(self, first_block: int, last_block: int) -> "PackedWeight":
        """The weights of some blocks of outputs."""
        own = slice(first_block, last_block)
        steps = None if self.steps is None else self.steps[own]
        scales = self.scales[first_block * BLOCK_OUTPUTS : last_block * BLOCK_OUTPUTS]
        return PackedWeight(self.codes[own], steps, scales)

    def rows(self, outputs: torch.Tensor) -> torch.Tensor:
        """Looks up [tokens] outputs: their weights, float32 [tokens, inputs]."""
        block, lane = outputs // BLOCK_OUTPUTS, outputs % BLOCK_OUTPUTS
        codes = self.codes[block, :, :, lane]
        if self.steps is None:
            numbers = codes.float() - MIDDLE
        else:
            step, lowest = self.steps[block, :, :, lane][..., None, None].float().unbind(2)
            numbers = step * unpack_nibbles(codes).float() + (lowest - MIDDLE)
        return numbers.flatten(1) * self.scales[outputs, None]


def is_whole(part: torch.Tensor, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a tensor is of a type, on a device, aligned, without gaps."""
    return part.dtype == dtype and part.device == device and part.is_contiguous() and is_aligned(part)


def unpack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Codes of 4 bits, a byte for each: [blocks or tokens, groups, 4 quads, ...] -> [..., 8 quads, ...]."""
    return torch.stack((codes & 15, codes >> 4), dim=3).flatten(2, 3)


def multiply_packed(rows: torch.Tensor, weight: PackedWeight, level: str | None = None) -> torch.Tensor:
    """Multiplies rows with a transposed matrix.

    Args:
        rows: [tokens, in_features], fp32 or bf16, with neighbouring values.
        weight: [out_features, in_features].
        level: instructions to use, of `LEVELS`; None for the best, or for plain torch where there is no kernel.

    Returns:
        [tokens, out_features], of the rows' type.

    Raises:
        ValueError: the tensors do not fit each other, or the processor lacks the instructions.
    """
    fits = rows.dim() == 2 and rows.shape[1] == weight.shape[1] and rows.is_floating_point()
    if not (fits and rows.device == weight.codes.device and weight.fits):
        parts = [part for part in (rows, weight.codes, weight.steps, weight.scales) if part is not None]
        raise ValueError(f"no kernel multiplies {describe(*parts)}")
    if rows.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "quantised weights have no gradients: train on the model that was quantised; its packs fit both"
        )
    if not can_run(rows):
        if level is not None:
            raise ValueError(f"no kernel of level {level} multiplies {describe(rows)} on {rows.device.type}")
        return multiply_in_torch(rows, weight)
    return call_kernel(rows, weight, [], level or LEVELS[0])


# What a LoRA is to the kernels: its first row, the one behind its last, the addresses of A and of B, and its scale.
LoraAddresses = tuple[int, int, MatrixAddresses, MatrixAddresses, float]


def call_kernel(rows: torch.Tensor, weight: PackedWeight, loras: list[LoraAddresses], level: str) -> torch.Tensor:
    """Multiplies rows that were checked, and adds LoRAs; [tokens, out_features]."""
    outputs, inputs = weight.shape
    tokens, groups, spans = rows.shape[0], inputs // GROUP_INPUTS, spans_of(inputs)
    results = torch.empty(tokens, outputs, dtype=rows.dtype)
    # For the rounded rows: their values, then scales and offsets of 4 bytes each.
    room = torch.empty(tokens * (inputs + 4 * (spans + groups)), dtype=torch.uint8)
    values = room.data_ptr()
    scales = values + tokens * inputs
    NATIVE.multiply_quantised(
        level,
        torch.get_num_threads(),
        (rows.data_ptr(), rows.stride(0)),
        (values, scales, scales + 4 * tokens * spans),
        weight.addresses,
        loras,
        results.data_ptr(),
        (tokens, groups),
        rows.dtype == torch.bfloat16,
    )
    return results


def largest_value(steps: torch.Tensor, level: str | None = None) -> int:
    """What the largest code of 4 bits stands for, plus 128. Above 255 it is no number of 8 bits.

    The kernels give other results than plain torch then, so that such weights must not be used.

    Args:
        steps: uint8 [outputs / 16, inputs / 32, 2, 16], as in `PackedWeight`.
        level: instructions to use, of `LEVELS`; None for the best, or for plain torch where there is no kernel.

    Raises:
        ValueError: the tensor has another shape or type.
    """
    if not (steps.shape[2:] == (2, BLOCK_OUTPUTS) and steps.dtype == torch.uint8 and steps.is_contiguous()):
        raise ValueError(f"these are no steps of 4 bits: {describe(steps)}")
    if NATIVE is None or steps.device.type != "cpu":
        step, lowest = steps.short().unbind(2)
        return int((15 * step + lowest).amax())
    places = steps.shape[0] * steps.shape[1]
    return int(NATIVE.largest_value(level or LEVELS[0], steps.data_ptr(), places))


# Outputs whose weights are unpacked together without a kernel: 4,096 x 8,192 of them take 134 MB.
_TORCH_BLOCKS = 256


def multiply_in_torch(rows: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
    """What the kernels compute, in plain torch: the reference, and the way where nothing was compiled."""
    return multiply_numbers(*round_rows(rows), weight).to(rows.dtype)


def multiply_numbers(numbers: torch.Tensor, scales: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
    """The product of rounded rows, as `round_rows` returns them: float32 [tokens, out_features]."""
    spans = numbers.split(SPAN_INPUTS, dim=1)
    parts = []
    for first in range(0, weight.codes.shape[0], _TORCH_BLOCKS):
        values = weight.values(first, first + _TORCH_BLOCKS)
        sums = numbers.new_zeros(numbers.shape[0], values.shape[0])
        for own, own_values, scale in zip(spans, values.split(SPAN_INPUTS, dim=1), scales.T, strict=True):
            # Whole numbers below 2^24: exact in fp32, in any order.
            sums += (own @ own_values.T) * scale[:, None]
        parts.append(sums)
    return torch.cat(parts, dim=1) * weight.scales


def spans_of(inputs: int) -> int:
    """How many spans so many inputs have."""
    return -(-inputs // SPAN_INPUTS)


def round_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounds rows to whole numbers from -127 to 127.

    Returns:
        The numbers as float32 [tokens, inputs], and the scale of each span, [tokens, spans].
    """
    rounded = [round_groups(span) for span in rows.float().split(SPAN_INPUTS, dim=1)]
    return torch.cat([numbers for numbers, _ in rounded], dim=1), torch.stack([scale for _, scale in rounded], dim=1)


def round_groups(wide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounds each group of numbers, float32 [..., group], to whole ones from -127 to 127 with a scale.

    Returns:
        The numbers as float32 [..., group], and the scales [...]: NaN where a group holds NaN or infinity.
    """
    largest = wide.abs().amax(-1)
    # A tensor, since torch multiplies with a reciprocal, rounded once more, where a plain number is divided.
    none, full = torch.zeros_like(largest), torch.full_like(largest, 127.0)
    inverse = torch.where(largest >= _SMALLEST, full / largest, none)
    scales = torch.where(largest >= _SMALLEST, largest / full, none)
    finite = largest.isfinite()
    numbers = torch.where(finite[..., None], torch.round(wide * inverse[..., None]), none[..., None])
    return numbers, torch.where(finite, scales, torch.nan)
