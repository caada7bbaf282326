"""Products with a frozen language model in 8 bits, for training adapters and encoders on a CPU.

Of a training step without activation checkpointing, two thirds and more are products with frozen weights: each row
times the weight on the way there, each gradient times the transposed weight on the way back. Both are multiplied in
whole numbers here, by the kernels that serve quantised models. What trains is multiplied as it is, and so is everything
where no gradient is kept, as in a validation.
"""

from typing import Any

import torch

from phi4.checkpoint.rounding import round_weight
from phi4.errors import ConfigError
from phi4.kernels.instructions import NATIVE
from phi4.kernels.quantised import GROUP_INPUTS, PackedWeight, multiply_packed
from phi4.model.decoder import Phi4Mini
from phi4.model.lora import AdaptedLinear
from phi4.model.multimodal import Phi4Multimodal


class RoundedProduct:
    """A frozen weight as numbers of 8 bits, once as it is and once transposed.

    Attributes:
        there: [outputs, inputs].
        back: [inputs, outputs].
    """

    def __init__(self, weight: torch.Tensor) -> None:
        wide = weight.detach().float()
        self.there = round_weight(wide, bits=8)
        self.back = round_weight(wide.T.contiguous(), bits=8)

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


def round_base(model: Phi4Mini | Phi4Multimodal) -> None:
    """Rounds the linears of the decoder's layers; their weights stay beside that as they are.

    Args:
        model: frozen but for what trains, which is not the language model.

    Raises:
        ConfigError: the language model trains, or this machine would take longer so.
    """
    if model.device.type != "cpu" or NATIVE is None:
        raise ConfigError(
            "a rounded base is for CPUs with compiled kernels, and this run has none of them: leave out --rounded-base"
        )
    linears = [part for part in model.modules() if isinstance(part, AdaptedLinear)]
    for linear in linears:
        weight = linear.weight
        assert isinstance(weight, torch.Tensor), "training refuses quantised models before it begins"
        if weight.requires_grad:
            raise ConfigError(
                "the language model trains in this stage, so that it cannot be rounded: leave out --rounded-base"
            )
        if not any(size % GROUP_INPUTS for size in weight.shape):
            linear.rounded = RoundedProduct(weight)
