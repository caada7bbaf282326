"""The multi-head attention of both encoders: every position sees every other."""

import torch
from torch import nn
from torch.nn import functional


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
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2))
