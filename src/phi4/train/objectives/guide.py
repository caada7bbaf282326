"""A convolutional network that a small vision tower can imitate.

Attention has to learn from many pictures that neighbours belong together; a convolution is made that way. A tower that
also learns to say what a small convolutional network says at every place needs far fewer pictures (arXiv 2207.10026).
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from phi4.checkpoint.usual_dtype import multiplies_bf16
from phi4.errors import DataError

STRIDE_PX = 8
WIDTHS = (32, 64, 128, 128, 256, 256)
STRIDES = (2, 1, 2, 1, 2, 1)


class Guide(nn.Module):
    """Six 3 x 3 convolutions, one feature vector for each square of `STRIDE_PX` pixels.

    `mean` and `deviation` are those of the features over training pictures: imitated features are standardised.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
                )
                for before, width, stride in zip((3, *WIDTHS), WIDTHS, STRIDES, strict=False)
            )
        )
        self.register_buffer("mean", torch.zeros(WIDTHS[-1]))
        self.register_buffer("deviation", torch.ones(WIDTHS[-1]))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Normalised pixels, [pictures, 3, side, side], to features, [pictures, width, side / 8, side / 8]."""
        features: torch.Tensor = self.blocks(pictures.contiguous(memory_format=torch.channels_last))
        return features

    @torch.no_grad()
    def standardised(self, pictures: torch.Tensor, side: int) -> torch.Tensor:
        """What a tower with so many patches along one side is to imitate.

        Returns:
            Features with mean 0 and deviation 1, computed in bf16 where that is quick, fp32 [pictures, side * side,
            width].
        """
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=multiplies_bf16(pictures.device)):
            features = self(pictures.float())
        places = functional.adaptive_avg_pool2d(features.float(), side).flatten(2).transpose(1, 2)
        return (places - self.mean) / self.deviation


def load_guide(path: Path) -> Guide:
    """Loads a trained guide, which no longer changes.

    Raises:
        DataError: the file is missing, or is not a guide.
    """
    guide = Guide()
    try:
        guide.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"{path} is not a guide: {error}; make it as the recipe says") from error
    return guide.eval().requires_grad_(False)
