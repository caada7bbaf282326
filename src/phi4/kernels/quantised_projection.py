"""A linear layer of an encoder with weights of 8 bits, and what follows it: the same bits in any company, at any level.

Rows are rounded once for all the linears that they go through. Inputs that do not fill a group of 32 are filled with
zeros. Everything behind the product is float32, each operation rounded by itself, as plain torch does it.
"""

from dataclasses import dataclass

import torch

from phi4.kernels.encoder import ACTIVATIONS, Activation
from phi4.kernels.instructions import DTYPES, LEVELS, NATIVE, address, can_run, describe, is_aligned
from phi4.kernels.quantised import GROUP_INPUTS, PackedWeight, is_whole, multiply_numbers, round_rows, spans_of


@dataclass(frozen=True)
class RoundedRows:
    """Rows as numbers of 8 bits.

    Attributes:
        values: [tokens, inputs]; int8 in the order of the level's kernels, or float32 as they are for plain torch.
        scales: float32 [tokens, spans], in the same order.
        offsets: int32 [tokens, groups], for kernels only.
        dtype: of the rows before, and of results.
        level: of instructions that multiplies them; None for plain torch.
    """

    values: torch.Tensor
    scales: torch.Tensor
    offsets: torch.Tensor
    dtype: torch.dtype
    level: str | None

    @property
    def fits(self) -> bool:
        """Whether the tensors are of the kinds and shapes that they must have, aligned, without gaps, on one device."""
        values, scales, device = self.values, self.scales, self.values.device
        if values.dim() != 2 or scales.shape != (values.shape[0], spans_of(values.shape[1])):
            return False
        if not is_whole(scales, torch.float32, device):
            return False
        if self.level is None:
            return is_whole(values, torch.float32, device)
        return (
            values.is_cpu
            and self.dtype in DTYPES
            and self.offsets.shape == (values.shape[0], values.shape[1] // GROUP_INPUTS)
            and is_whole(values, torch.int8, device)
            and is_whole(self.offsets, torch.int32, device)
        )


def padded(inputs: int) -> int:
    """How many inputs a weight must have for rows of so many."""
    return -(-inputs // GROUP_INPUTS) * GROUP_INPUTS


def round_once(rows: torch.Tensor, level: str | None = None) -> RoundedRows:
    """Rounds rows to 8 bits in spans of 128 inputs.

    Args:
        rows: [tokens, in_features], fp32 or bf16.
        level: instructions to use, of `LEVELS`; None for the best, or for plain torch where there is no kernel.

    Raises:
        ValueError: the rows are of another type, or have gradients, or there is no kernel of this level for them.
    """
    if rows.dim() != 2 or not rows.is_floating_point():
        raise ValueError(f"no kernel rounds {describe(rows)}")
    if rows.requires_grad and torch.is_grad_enabled():
        raise ValueError("quantised weights have no gradients: train on the model that was quantised")
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    if not can_run(rows):
        if level is not None:
            raise ValueError(f"no kernel of level {level} rounds {describe(rows)} on {rows.device.type}")
        return round_in_torch(rows)
    tokens, inputs = rows.shape
    filled = padded(inputs)
    rounded = RoundedRows(
        torch.empty(tokens, filled, dtype=torch.int8),
        torch.empty(tokens, spans_of(filled), dtype=torch.float32),
        torch.empty(tokens, filled // GROUP_INPUTS, dtype=torch.int32),
        rows.dtype,
        level or LEVELS[0],
    )
    NATIVE.round_rows(
        rounded.level,
        torch.get_num_threads(),
        (rows.data_ptr(), rows.stride(0)),
        _addresses(rounded),
        (tokens, inputs),
        rows.dtype == torch.bfloat16,
    )
    return rounded


def project_rounded(
    rows: RoundedRows,
    weight: PackedWeight,
    bias: torch.Tensor | None = None,
    *,
    activation: Activation = "none",
    scale: float = 1.0,
    factors: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """scale * activation(rows @ weight.T + bias) * factors + residual.

    Args:
        rows: of as many inputs as the weight.
        weight: [out_features, in_features].
        bias: [out_features], or None.
        activation: "gelu" is the one with tanh.
        scale: of what is added to the residual.
        factors: of the rows' type, [tokens, out_features], or None.
        residual: likewise.
        out: where the result goes, of its type and shape; may be the residual. None for a new tensor.

    Returns:
        [tokens, out_features], of the rows' type.

    Raises:
        ValueError: the tensors do not fit each other.
    """
    tokens = rows.values.shape[0]
    outputs, inputs = weight.shape
    others = [other for other in (factors, residual, out) if other is not None]
    parts = others if bias is None else [bias, *others]
    fits = (
        rows.fits
        and weight.fits
        and activation in ACTIVATIONS
        and inputs == rows.values.shape[1]
        and (bias is None or (bias.shape == (outputs,) and bias.is_floating_point() and is_aligned(bias)))
        and all(
            other.shape == (tokens, outputs) and is_whole(other, rows.dtype, rows.values.device) for other in others
        )
        and all(part.device == rows.values.device for part in (weight.codes, *parts))
    )
    if not fits:
        raise ValueError(
            f"no kernel projects {describe(rows.values, weight.codes, *parts)} with activation: {activation}"
        )
    if rows.level is None:
        found = project_in_torch(
            rows, weight, bias, activation=activation, scale=scale, factors=factors, residual=residual
        )
        return found if out is None else out.copy_(found)
    wide_bias = None if bias is None else bias.float().contiguous()
    results = torch.empty(tokens, outputs, dtype=rows.dtype) if out is None else out
    NATIVE.project_rounded(
        rows.level,
        torch.get_num_threads(),
        _addresses(rows),
        weight.addresses[:3],
        (address(wide_bias), address(factors), address(residual), results.data_ptr()),
        (tokens, weight.codes.shape[0], inputs // GROUP_INPUTS),
        scale,
        ACTIVATIONS.index(activation),
        rows.dtype == torch.bfloat16,
    )
    return results


def _addresses(rows: RoundedRows) -> tuple[int, int, int]:
    return rows.values.data_ptr(), rows.scales.data_ptr(), rows.offsets.data_ptr()


def round_in_torch(rows: torch.Tensor) -> RoundedRows:
    """What the kernels compute, in plain torch: the reference, and the way where nothing was compiled."""
    filled = torch.nn.functional.pad(rows.float(), (0, padded(rows.shape[1]) - rows.shape[1]))
    numbers, scales = round_rows(filled)
    return RoundedRows(numbers, scales, scales.new_empty(0, dtype=torch.int32), rows.dtype, None)


def project_in_torch(
    rows: RoundedRows,
    weight: PackedWeight,
    bias: torch.Tensor | None,
    *,
    activation: Activation,
    scale: float,
    factors: torch.Tensor | None,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    """The same as `project_rounded`, in plain torch."""
    sums = multiply_numbers(rows.values, rows.scales, weight)
    result = activate(sums if bias is None else sums + bias.float(), activation)
    if factors is not None:
        result = result * factors.float()
    result = result * scale
    return (result if residual is None else result + residual.float()).to(rows.dtype)


def activate(values: torch.Tensor, activation: Activation) -> torch.Tensor:
    """The activation of float32 values, with the operations of the kernels in their order."""
    if activation == "none":
        return values
    if activation == "relu":
        return torch.where(values < 0, 0.0, values)
    slope = values
    if activation == "gelu":
        slope = values * 1.5957691216 * (values * values * 0.044715 + 1.0)  # 2 sqrt(2 / pi)
    power = exp_of_negative(torch.where(slope < 0, slope, -slope))
    return values * (torch.where(slope < 0, power, 1.0) / (power + 1.0))


def exp_of_negative(values: torch.Tensor) -> torch.Tensor:
    """exp of float32 values up to 0 with a relative error below 2e-7, 0 below -87; NaN stays NaN."""
    inside = torch.where(values < -87, -87.0, values)
    whole = torch.round(inside * 1.44269504)
    rest = inside - whole * 0.693359375
    rest = rest + whole * 2.12194440e-4
    sums = rest * (1 / 720) + 1 / 120
    for coefficient in (1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        sums = sums * rest + coefficient
    power = (whole.nan_to_num().int() + 127 << 23).view(torch.float32)
    return torch.where(values < -87, 0.0, sums * power)
