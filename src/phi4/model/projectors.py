"""The two-layer projector from an encoder's width to the language model's."""

import torch
from torch import nn
from torch.nn import functional


class Projector(nn.Module):
    """Linear, GELU (the exact one with erf), Linear (facts sheet 4.4, 5.3)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.up = nn.Linear(in_features, out_features)
        self.down = nn.Linear(out_features, out_features)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[tokens, encoder width] -> [tokens, hidden]."""
        return self.down(functional.gelu(self.up(features)))
