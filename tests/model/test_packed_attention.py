"""Packed attention is what each conversation computes for itself, gradients included."""

import pytest
import torch

from phi4.model.attention import attend_with_stock_kernel
from phi4.model.packed_attention import PackedAttention

LENGTHS = [5, 9, 1, 12, 7]
# The third and the fourth conversation go on from the first segment, the last from the second.
PREFIXES = [None, None, 0, 0, 1]


def heads(number: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(LENGTHS), number, 8, generator=generator, requires_grad=True)


def one_by_one(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    histories: list[tuple[torch.Tensor, torch.Tensor]] = []
    outputs = []
    parts = zip(*(x.split(LENGTHS) for x in (queries, keys, values)), PREFIXES, strict=True)
    for own_queries, own_keys, own_values, prefix in parts:
        before = () if prefix is None else histories[prefix]
        own = (own_keys.transpose(0, 1), own_values.transpose(0, 1))
        histories.append(own if prefix is None else tuple(torch.cat(pair, 1) for pair in zip(before, own, strict=True)))
        outputs.append(attend_with_stock_kernel(own_queries, *histories[-1]))
    return torch.cat(outputs)


@pytest.mark.parametrize("max_group_keys", [65536, 20])
def test_conversations_attend_as_they_would_alone(max_group_keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phi4.model.packed_attention.MAX_GROUP_KEYS", max_group_keys)
    packed = PackedAttention.of(LENGTHS, PREFIXES, torch.device("cpu"))
    assert len(packed.groups) == (1 if max_group_keys > 20 else 4)
    inputs = heads(6, 0), heads(2, 1), heads(2, 2)
    output, expected = packed.attend(*inputs), one_by_one(*inputs)
    torch.testing.assert_close(output, expected)
    slope = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    for own, other in zip(
        torch.autograd.grad(output, inputs, slope), torch.autograd.grad(expected, inputs, slope), strict=True
    ):
        torch.testing.assert_close(own, other)
