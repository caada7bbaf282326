"""Both ways to attend agree with each other and with the definition, for pieces of any size."""

import pytest
import torch

from phi4.model.attention import attend_in_blocks, attend_with_stock_kernel


def naive(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """One query head and one token at a time."""
    tokens, heads, head_dim = queries.shape
    kv_heads, history, _ = keys.shape
    rows = []
    for token in range(tokens):
        seen = history - tokens + token + 1
        for head in range(heads):
            group = head * kv_heads // heads
            weights = torch.softmax(keys[group, :seen] @ queries[token, head] / head_dim**0.5, dim=0)
            rows.append(weights @ values[group, :seen])
    return torch.stack(rows).view(tokens, heads * head_dim)


@pytest.mark.parametrize(
    ("tokens", "cached"), [(1, 0), (1, 70), (2, 1), (5, 0), (64, 0), (65, 3), (130, 0), (129, 200)]
)
def test_every_way_to_attend_gives_the_definition(tokens: int, cached: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    queries = torch.randn(tokens, 6, 8, generator=generator)
    keys, values = torch.randn(2, 2, cached + tokens, 8, generator=generator)
    expected = naive(queries, keys, values)
    torch.testing.assert_close(attend_in_blocks(queries, keys, values), expected)
    torch.testing.assert_close(attend_with_stock_kernel(queries, keys, values), expected)
