"""Causal grouped-query attention of one conversation over its own history."""

import torch
from torch.nn import functional


def causal_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Lets the last tokens of a conversation attend to all tokens up to themselves.

    Args:
        queries: the new tokens, [tokens, heads, head_dim].
        keys: the whole history, the new tokens at its end, [kv_heads, history, head_dim].
        values: [kv_heads, history, head_dim].

    Returns:
        [tokens, heads * head_dim].
    """
    if queries.shape[0] == 1:
        return _attend_one(queries, keys, values)
    return _attend_many(queries, keys, values)


def _attend_one(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A decoding step sees everything, so the heads of one group become the rows of a plain product."""
    kv_heads, _, head_dim = keys.shape
    grouped = queries.view(kv_heads, -1, head_dim) * head_dim**-0.5
    weights = torch.softmax(grouped @ keys.transpose(1, 2), dim=-1, dtype=torch.float32).to(values.dtype)
    return (weights @ values).view(1, -1)


def _attend_many(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Prefill: causal within the new tokens, everything before them is visible."""
    tokens, heads, _ = queries.shape
    kv_heads, history, _ = keys.shape
    mask = None
    if history > tokens:
        mask = torch.ones(tokens, history, dtype=torch.bool, device=queries.device).tril(history - tokens)
    group = heads // kv_heads
    output = functional.scaled_dot_product_attention(
        queries.transpose(0, 1)[None],
        keys.repeat_interleave(group, dim=0)[None],
        values.repeat_interleave(group, dim=0)[None],
        attn_mask=mask,
        is_causal=mask is None,
    )
    return output[0].transpose(0, 1).reshape(tokens, -1)
