"""Causal grouped-query attention of one conversation over its own history."""

import math

import torch
from torch.nn import functional

# On the CPU, blocks of queries beat the stock kernel on bf16 prompts up to about this history, and for single queries
# at any length (benchmarks/attention.py).
MAX_BLOCKED_HISTORY = 8192

# Scores exist for this many queries at a time, and none are computed above the last query of a block.
QUERY_BLOCK = 64


def causal_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Lets the last tokens of a conversation attend to all tokens up to themselves.

    Args:
        queries: the new tokens, [tokens, heads, head_dim].
        keys: the whole history, the new tokens at its end, [kv_heads, history, head_dim].
        values: [kv_heads, history, head_dim].

    Returns:
        [tokens, heads * head_dim].
    """
    blocked = queries.shape[0] == 1 or keys.shape[1] <= MAX_BLOCKED_HISTORY
    if queries.device.type == "cpu" and blocked:
        return attend_in_blocks(queries, keys, values)
    return attend_with_stock_kernel(queries, keys, values)


def attend_in_blocks(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Two matrix products for each block of queries; shapes as for `causal_attention`.

    The query heads of one group stand one below the other, so that a group shares one product with its key head.
    """
    tokens, history = queries.shape[0], keys.shape[1]
    kv_heads, _, head_dim = keys.shape
    outputs: list[torch.Tensor] = []
    for block in (queries * head_dim**-0.5).split(QUERY_BLOCK):
        length = block.shape[0]
        end = history - tokens + length + QUERY_BLOCK * len(outputs)
        grouped = block.view(length, kv_heads, -1, head_dim).permute(1, 2, 0, 3).reshape(kv_heads, -1, head_dim)
        scores = (grouped @ keys[:, :end].transpose(1, 2)).view(kv_heads, -1, length, end)
        if length > 1:
            future = torch.ones(length, length, dtype=torch.bool).triu(1)
            scores[..., end - length :].masked_fill_(future, -math.inf)
        # The softmax of bf16 scores is computed in fp32 and rounded once.
        weights = torch.softmax(scores, dim=-1).view(kv_heads, -1, end)
        attended = (weights @ values[:, :end]).view(kv_heads, -1, length, head_dim)
        outputs.append(attended.permute(2, 0, 1, 3).reshape(length, -1))
    return torch.cat(outputs)


def attend_with_stock_kernel(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """torch's fused attention; shapes as for `causal_attention`."""
    tokens, history = queries.shape[0], keys.shape[1]
    mask = None
    if 1 < tokens < history:
        mask = torch.ones(tokens, history, dtype=torch.bool, device=queries.device).tril(history - tokens)
    output = functional.scaled_dot_product_attention(
        queries.transpose(0, 1)[None],
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=tokens == history,
        enable_gqa=True,
    )
    return output[0].transpose(0, 1).reshape(tokens, -1)
