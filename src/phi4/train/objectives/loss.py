"""What every objective returns."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from phi4.data.example import Example
from phi4.errors import DataError
from phi4.inputs import ImageCrops, Medium
from phi4.model.multimodal import Phi4Multimodal


class Loss(NamedTuple):
    """The loss of some examples.

    Attributes:
        total: summed over `count` terms, fp32, with a gradient.
        correct: how many of the terms are predicted exactly.
        figures: sums over the terms of what else the objective reports, as `ObjectiveLoss.figures` names it.
    """

    total: torch.Tensor
    correct: int
    figures: tuple[float, ...] = ()


class ObjectiveLoss(nn.Module):
    """A loss over the examples of one packed row.

    Attributes:
        figures: names of what is reported beside loss and accuracy, as means over the terms.
    """

    figures: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def count(self, examples: Sequence[Example]) -> int:
        """How many terms the loss of these examples adds up."""

    @abstractmethod
    def forward(self, model: Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        """Computes the summed loss."""


def first_medium(example: Example, modality: str) -> Medium:
    """The medium that the answer is about.

    Raises:
        DataError: the record has none.
    """
    for medium in example.inputs.media:
        if medium.modality == modality:
            return medium
    raise DataError(f"record {example.record.id!r} has no medium for {modality}, which its objective needs")


def global_views(model: Phi4Multimodal, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """The global view of each example's picture, for the vision tower: crops and masks.

    Raises:
        DataError: a record has no picture.
    """
    media = (first_medium(example, "vision").data for example in examples)
    return stacked_global_views(model, [picture for picture in media if isinstance(picture, ImageCrops)])


def stacked_global_views(model: Phi4Multimodal, pictures: Sequence[ImageCrops]) -> tuple[torch.Tensor, torch.Tensor]:
    """The global views of pictures, for the vision tower: crops and masks."""
    weight = model.vision.encoder.patch_embedding.weight
    crops = torch.stack([picture.crops[0] for picture in pictures])
    masks = torch.stack([picture.mask[0] for picture in pictures])
    return crops.to(weight.device, weight.dtype), masks.to(weight.device)
