"""The product of packed rows with a quantised weight and what LoRAs of 8 bits add to some of them, in one call.

A row gets the bits that `multiply_packed` and two `project_rounded` give it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from phi4.kernels.instructions import LEVELS, can_run, describe
from phi4.kernels.quantised import LoraAddresses, PackedWeight, call_kernel, multiply_packed
from phi4.kernels.quantised_projection import project_rounded, round_once


@dataclass(frozen=True)
class LowRank:
    """scale * up(down(row)), which is added to the rows start <= row < stop.

    Attributes:
        start, stop: the rows.
        down: A of a LoRA, [rank, inputs].
        up: its B, [outputs, rank].
        scale: what comes out of A is multiplied by it before it is rounded.
    """

    start: int
    stop: int
    down: PackedWeight
    up: PackedWeight
    scale: float

    def fits(self, tokens: int, outputs: int, inputs: int, device: torch.device) -> bool:
        """Whether it can be added to the product of so many rows."""
        rank = self.down.shape[0]
        return (
            0 <= self.start < self.stop <= tokens
            and self.down.fits
            and self.up.fits
            and self.down.shape == (rank, inputs)
            and self.up.shape == (outputs, rank)
            and self.down.codes.device == self.up.codes.device == device
        )

    @property
    def addresses(self) -> LoraAddresses:
        """What the kernels take."""
        return self.start, self.stop, self.down.addresses, self.up.addresses, self.scale


def multiply_adapted(
    rows: torch.Tensor, weight: PackedWeight, added: Sequence[LowRank], level: str | None = None
) -> torch.Tensor:
    """Multiplies rows with a transposed matrix and adds what LoRAs make of them.

    Args:
        rows: [tokens, in_features], fp32 or bf16, with neighbouring values.
        weight: [out_features, in_features].
        added: LoRAs; no row has more than one.
        level: instructions to use, of `LEVELS`; None for the best, or for plain torch where there is no kernel.

    Returns:
        [tokens, out_features], of the rows' type.

    Raises:
        ValueError: the tensors do not fit each other, or the processor lacks the instructions.
    """
    outputs, inputs = weight.shape
    fits = rows.dim() == 2 and rows.shape[1] == inputs and rows.device == weight.codes.device and weight.fits
    if not (fits and all(lora.fits(rows.shape[0], outputs, inputs, rows.device) for lora in added)):
        matrices = [matrix.codes for lora in added for matrix in (lora.down, lora.up)]
        places = ", ".join(f"{lora.start} to {lora.stop}" for lora in added)
        raise ValueError(f"no kernel multiplies {describe(rows, weight.codes, *matrices)} for LoRAs of rows {places}")
    if not can_run(rows):
        return multiply_in_steps(rows, weight, added, level)
    return call_kernel(rows, weight, [lora.addresses for lora in added], level or LEVELS[0])


def multiply_in_steps(
    rows: torch.Tensor, weight: PackedWeight, added: Sequence[LowRank], level: str | None = None
) -> torch.Tensor:
    """The same with a call for each product: the reference, and the way where nothing was compiled."""
    output = multiply_packed(rows, weight, level)
    for lora in added:
        own, sums = slice(lora.start, lora.stop), output[lora.start : lora.stop]
        low = project_rounded(round_once(rows[own], level), lora.down, scale=lora.scale)
        project_rounded(round_once(low, level), lora.up, residual=sums, out=sums)
    return output
