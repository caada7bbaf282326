"""Weights of 4 or 8 bits as parts of a model; they are read as they are stored and have no gradients."""

from collections.abc import Callable

import torch
from torch import nn

from phi4.errors import ConfigError
from phi4.kernels.quantised import BLOCK_OUTPUTS, GROUP_INPUTS, PackedWeight
from phi4.kernels.quantised_projection import padded


class QuantisedWeight(nn.Module):
    """A weight matrix of [outputs, inputs]; `PackedWeight` explains its tensors."""

    codes: torch.Tensor
    steps: torch.Tensor | None
    scales: torch.Tensor

    def __init__(self, outputs: int, inputs: int, bits: int) -> None:
        super().__init__()
        if outputs % BLOCK_OUTPUTS or inputs % GROUP_INPUTS:
            raise ConfigError(
                f"a weight of {outputs} outputs and {inputs} inputs cannot be quantised: "
                f"they must be multiples of {BLOCK_OUTPUTS} and {GROUP_INPUTS}"
            )
        blocks, groups = outputs // BLOCK_OUTPUTS, inputs // GROUP_INPUTS
        self.register_buffer("codes", torch.empty(blocks, groups, bits, BLOCK_OUTPUTS, 4, dtype=torch.uint8))
        steps = torch.empty(blocks, groups, 2, BLOCK_OUTPUTS, dtype=torch.uint8) if bits == 4 else None
        self.register_buffer("steps", steps)
        self.register_buffer("scales", torch.empty(outputs, dtype=torch.float32))
        self._packed: PackedWeight | None = None

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "QuantisedWeight":
        """Goes to other devices with the model, but keeps its types: codes have no other, and scales need all bits."""
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def packed(self) -> PackedWeight:
        """What the kernels take; the same one as long as the tensors are, since it knows whether they fit."""
        codes, steps, scales = self.codes, self.steps, self.scales
        known = self._packed
        if known is None or not (known.codes is codes and known.steps is steps and known.scales is scales):
            known = self._packed = PackedWeight(codes, steps, scales)
        return known


class QuantisedMatrix(nn.Module):
    """A linear without a bias."""

    def __init__(self, outputs: int, inputs: int, bits: int) -> None:
        super().__init__()
        self.weight = QuantisedWeight(outputs, inputs, bits)


class QuantisedTable(QuantisedMatrix):
    """A token embedding, or the head that multiplies with it: [vocabulary, hidden]."""

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Looks up [tokens] ids: float32 [tokens, hidden]."""
        return self.weight.packed.rows(token_ids)


class QuantisedLinear(nn.Module):
    """A linear of an encoder with a bias. Inputs that do not fill a group of weights have zeros behind them."""

    def __init__(self, inputs: int, outputs: int, bits: int) -> None:
        super().__init__()
        self.weight = QuantisedWeight(outputs, padded(inputs), bits)
        self.bias = nn.Parameter(torch.empty(outputs))

    @property
    def matrix(self) -> QuantisedWeight:
        """The weight, as pointwise convolutions name it."""
        return self.weight


def new_linear(inputs: int, outputs: int, bits: int | None) -> "nn.Linear | QuantisedLinear":
    """An empty linear of an encoder; bits are None for one that is not quantised."""
    return nn.Linear(inputs, outputs) if bits is None else QuantisedLinear(inputs, outputs, bits)


def new_lora(inputs: int, outputs: int, rank: int, bits: int | None) -> tuple[nn.Module, nn.Module]:
    """Empty A of [rank, inputs] and B of [outputs, rank]; quantised, zeros fill the rank up to whole groups."""
    if bits is None:
        return nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
    return QuantisedMatrix(padded(rank), inputs, bits), QuantisedMatrix(outputs, padded(rank), bits)


def new_weight(outputs: int, inputs: int, bits: int | None) -> nn.Parameter | QuantisedWeight:
    """An empty weight matrix of [outputs, inputs]; bits are None for one that is not quantised."""
    return nn.Parameter(torch.empty(outputs, inputs)) if bits is None else QuantisedWeight(outputs, inputs, bits)
