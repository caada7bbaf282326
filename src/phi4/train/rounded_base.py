"""Products with a frozen language model in 8 bits, for training adapters and encoders on a CPU.

Of a training step without activation checkpointing, two thirds and more are products with frozen weights: each row
times the weight on the way there, each gradient times the transposed weight on the way back. Both are multiplied in
whole numbers here, by the kernels that serve quantised models. What trains is multiplied as it is, and so is everything
where no gradient is kept, as in a validation.
"""

import torch

from phi4.checkpoint.rounding import round_weight
from phi4.errors import ConfigError
from phi4.model.decoder import Phi4Mini
from phi4.model.lora import AdaptedLinear
from phi4.model.multimodal import Phi4Multimodal
from phi4.model.rounded_product import RoundedProduct, can_be_rounded, is_faster_on


def round_base(model: Phi4Mini | Phi4Multimodal) -> None:
    """Rounds the linears of the decoder's layers; their weights stay beside that as they are.

    Args:
        model: frozen but for what trains, which is not the language model.

    Raises:
        ConfigError: the language model trains, or this machine would take longer so.
    """
    if not is_faster_on(model.device):
        raise ConfigError(
            "a rounded base is for CPUs with compiled kernels, and this run has none of them: leave out --rounded-base"
        )
    for linear in (part for part in model.modules() if isinstance(part, AdaptedLinear)):
        weight = linear.weight
        assert isinstance(weight, torch.Tensor), "training refuses quantised models before it begins"
        if weight.requires_grad:
            raise ConfigError(
                "the language model trains in this stage, so that it cannot be rounded: leave out --rounded-base"
            )
        if can_be_rounded(weight):
            linear.rounded = round_product(weight)


def round_product(weight: torch.Tensor) -> RoundedProduct:
    """Rounds [outputs, inputs], as it is and transposed."""
    wide = weight.detach().float()
    return RoundedProduct(round_weight(wide, bits=8), round_weight(wide.T.contiguous(), bits=8))
