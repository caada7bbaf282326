"""The multi-head attention of both encoders: every position sees every other."""

import math

import torch
from torch import nn
from torch.nn import functional

# On the CPU the stock kernel's backward pass takes three times as long as plain products for sequences of this length.
MAX_PLAIN_LENGTH = 128


class EncoderAttention(nn.Module):
    """Multi-head self-attention with biases, bidirectional."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Attends within each sequence.

        Args:
            hidden: [sequences, length, width].
            mask: broadcast to [sequences, heads, length (query), length (key)]; bool, True = attend, or a bias that is
                added to the scores; None lets everything see everything.

        Returns:
            [sequences, length, width].
        """
        queries, keys, values = (
            projection(hidden).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        short = hidden.shape[1] <= MAX_PLAIN_LENGTH and hidden.device.type == "cpu"
        attend = attend_plainly if short else functional.scaled_dot_product_attention
        return self.out_proj(attend(queries, keys, values, mask).transpose(1, 2).flatten(2))


def attend_plainly(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Two products around a softmax: [sequences, heads, length, head_dim] each, and a mask as for the module."""
    scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return torch.softmax(scores, dim=-1) @ values
