"""The product of packed rows with a weight matrix, in the one place where its way is decided."""

import torch
from torch.nn import functional

from phi4.kernels.linear import can_multiply, multiply
from phi4.kernels.quantised import multiply_packed
from phi4.kernels.quantised_projection import project_rounded, round_once
from phi4.model.quantised import QuantisedWeight


def linear(hidden: torch.Tensor, weight: torch.Tensor | QuantisedWeight) -> torch.Tensor:
    """[tokens, in_features] times the transposed [out_features, in_features]: [tokens, out_features].

    With the kernel, a row gets the same bits whatever stands beside it. The stock product rounds with the number of
    rows; it serves training, other devices, and machines without compiled kernels. A quantised weight gives the same
    bits everywhere.
    """
    if isinstance(weight, QuantisedWeight):
        return multiply_packed(hidden, weight.packed)
    if can_multiply(hidden, weight):
        return multiply(hidden, weight)
    return functional.linear(hidden, weight)


def add_linear(output: torch.Tensor, hidden: torch.Tensor, weight: torch.Tensor | QuantisedWeight) -> None:
    """Adds what `linear` would give to [tokens, out_features] in place, rounded once."""
    if isinstance(weight, QuantisedWeight):
        project_rounded(round_once(hidden), weight.packed, residual=output, out=output)
    elif can_multiply(hidden, weight):
        multiply(hidden, weight, add_to=output)
    else:
        output.addmm_(hidden, weight.T)
