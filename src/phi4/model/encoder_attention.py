"""The multi-head attention of both encoders: every position sees every other."""

import torch
from torch import nn
from torch.nn import functional

from phi4.kernels import encoder as kernels
from phi4.kernels.encoder import Ending
from phi4.model.encoder_steps import project, project_through
from phi4.model.quantised import new_linear

# On the CPU the stock kernel's backward pass takes three times as long as plain products for sequences of this length.
MAX_PLAIN_LENGTH = 128


class EncoderAttention(nn.Module):
    """Multi-head self-attention with biases, bidirectional; bits are those of its linears, None for any type."""

    def __init__(self, width: int, num_heads: int, bits: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = new_linear(width, width, bits)
        self.k_proj = new_linear(width, width, bits)
        self.v_proj = new_linear(width, width, bits)
        self.out_proj = new_linear(width, width, bits)

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor) -> torch.Tensor:
        """Attends within each sequence.

        Args:
            hidden: [sequences, length, width].
            bias: added to the scores, broadcast to [sequences, heads, length (query), length (key)]; -inf hides a key,
                None lets everything see everything.
            residual: what the result is added to, [sequences, length, width].

        Returns:
            [sequences, length, width].
        """
        queries, keys, values = (
            rows.unflatten(-1, (self.num_heads, -1))
            for rows in project_through(hidden, (self.q_proj, self.k_proj, self.v_proj))
        )
        attended = attend(queries, keys, values, bias).flatten(2)
        return project(attended, self.out_proj.weight, Ending(self.out_proj.bias, residual=residual))


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Attention in the quickest way: [sequences, length, heads, head_dim] each, and a bias as for the module."""
    if kernels.can_encode(queries, *(() if bias is None else (bias,))) and queries.shape[-1] % 2 == 0:
        return kernels.attend(queries, keys, values, bias)
    short = queries.shape[1] <= MAX_PLAIN_LENGTH and queries.device.type == "cpu"
    way = attend_plainly if short else functional.scaled_dot_product_attention
    return way(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), bias).transpose(1, 2)


def attend_plainly(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Two products around a softmax: [sequences, heads, length, head_dim] each, and a bias as for the module."""
    scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
    return torch.softmax(scores if bias is None else scores + bias, dim=-1) @ values
