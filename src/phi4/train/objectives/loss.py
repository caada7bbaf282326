"""What every objective returns."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from phi4.data.example import Example
from phi4.model.multimodal import Phi4Multimodal


class Loss(NamedTuple):
    """The loss of some examples.

    Attributes:
        total: summed over `count` terms, fp32, with a gradient.
        correct: how many of the terms are predicted exactly.
    """

    total: torch.Tensor
    correct: int


class ObjectiveLoss(nn.Module):
    """A loss over the examples of one packed row."""

    @abstractmethod
    def count(self, examples: Sequence[Example]) -> int:
        """How many terms the loss of these examples adds up."""

    @abstractmethod
    def forward(self, model: Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        """Computes the summed loss."""
