"""The product with a frozen weight in 8 bits, for passes that keep gradients."""

from dataclasses import dataclass
from typing import Any

import torch

from phi4.kernels.instructions import NATIVE
from phi4.kernels.quantised import GROUP_INPUTS, PackedWeight, multiply_packed


@dataclass(frozen=True)
class RoundedProduct:
    """A frozen weight as numbers of 8 bits, once as it is and once transposed.

    Attributes:
        there: [outputs, inputs].
        back: [inputs, outputs].
    """

    there: PackedWeight
    back: PackedWeight

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """[tokens, inputs] -> [tokens, outputs], with a gradient for the tokens."""
        product: torch.Tensor = _Product.apply(hidden, self.there, self.back)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, hidden: torch.Tensor, there: PackedWeight, back: PackedWeight) -> torch.Tensor:
        context.back = back
        return multiply_packed(hidden, there)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return multiply_packed(gradient.contiguous(), context.back), None, None


def is_faster_on(device: torch.device) -> bool:
    """Whether there are kernels for it; plain torch would take far longer than the exact product."""
    return device.type == "cpu" and NATIVE is not None


def can_be_rounded(weight: torch.Tensor) -> bool:
    """Whether [outputs, inputs] are whole groups, both ways."""
    return not any(size % GROUP_INPUTS for size in weight.shape)
