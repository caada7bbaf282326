"""Attention over keys and values that are bytes: the kernel against plain torch, and the same bits in any company."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from kernels.conftest import not_aligned
from phi4.kernels.cached_bytes import key_group, restore_heads, round_heads, scale_counts
from phi4.kernels.cached_layers import CachedLayers
from phi4.kernels.instructions import LEVELS, NATIVE
from phi4.kernels.paged_attention import PagedAttention, can_attend
from phi4.model.attention import attend_in_blocks

needs_kernels = pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")

HEADS, KV_HEADS, SLOTS = 6, 2, 512
# Where conversations are kept: in one piece and in several.
RUNS = [[(0, 64), (128, 192)], [(64, 80)], [(256, 400)]]
LENGTHS = [101, 9, 140]
# Levels that attend to bytes with queries and weights of 8 bits.
WHOLE_NUMBERS = ("amx", "avx512_bf16", "avx512_vnni")


@dataclass(frozen=True)
class Tokens:
    """Queries, keys and values of one conversation, [tokens, heads, head_dim] each."""

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor

    def part(self, first: int, last: int) -> "Tokens":
        return Tokens(self.queries[first:last], self.keys[first:last], self.values[first:last])


class Storage:
    """An empty cache of one layer."""

    def __init__(self, head_dim: int) -> None:
        self.keys, self.values = torch.zeros(2, KV_HEADS, SLOTS, head_dim, dtype=torch.int8)
        of_key, of_value = scale_counts(head_dim)
        self.scales = (torch.zeros(KV_HEADS, SLOTS, of_key), torch.zeros(KV_HEADS, SLOTS, of_value))

    def attend(self, parts: Sequence[tuple[int, int, Tokens]], level: str | None = None) -> torch.Tensor:
        """One step: the number of each conversation, how many of its tokens came before, and its new tokens."""
        described = [(len(new.queries), cached, RUNS[number]) for number, cached, new in parts]
        paged = PagedAttention.of(described, CachedLayers([self.keys], [self.values], [self.scales]), level)
        fused = [torch.cat([new.queries for *_, new in parts]), torch.cat([new.keys for *_, new in parts])]
        return paged.attend(0, *fused, torch.cat([new.values for *_, new in parts]))


def make_conversations(head_dim: int, dtype: torch.dtype) -> list[Tokens]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(length, heads, head_dim) for length in LENGTHS for heads in (HEADS, KV_HEADS, KV_HEADS)]
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return [Tokens(*made[n : n + 3]) for n in range(0, len(made), 3)]


@needs_kernels
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("head_dim", [16, 32, 64, 96, 128])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_every_level_agrees_with_plain_torch(level: str, head_dim: int, dtype: torch.dtype, error: float) -> None:
    """Stored bytes are the same; sums are in another order, and the last step rounds to the queries' type."""
    conversations, storage = make_conversations(head_dim, dtype), Storage(head_dim)
    outputs = storage.attend([(number, 0, one) for number, one in enumerate(conversations)], level)
    for number, (one, own) in enumerate(zip(conversations, outputs.split(LENGTHS), strict=True)):
        slots = torch.cat([torch.arange(*run) for run in RUNS[number]])[: len(one.keys)]
        histories = []
        for heads, stored, scales in zip(
            (one.keys, one.values), (storage.keys, storage.values), storage.scales, strict=True
        ):
            numbers, own_scales = (part.transpose(0, 1) for part in round_heads(heads, scales.shape[-1]))
            assert torch.equal(stored[:, slots], numbers)
            assert torch.equal(scales[:, slots], own_scales)
            histories.append((numbers.float(), own_scales))
        restored = [restore_heads(*history, torch.float32) for history in histories]
        if level in WHOLE_NUMBERS:
            expected = attend_in_whole_numbers(one.queries.float(), restored[0], *histories[1])
            # Weights on the border between two bytes may fall to either side.
            assert (own.float() - expected).abs().mean() < error / 2
            assert torch.allclose(own.float(), attend_in_blocks(one.queries.float(), *restored), atol=0.05)
        else:
            assert torch.allclose(own.float(), attend_in_blocks(one.queries.float(), *restored), atol=error)


def attend_in_whole_numbers(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, value_scales: torch.Tensor
) -> torch.Tensor:
    """What byte_attention.cpp computes, [tokens, heads * head_dim], one query after the other.

    Args:
        queries: [tokens, heads, head_dim].
        keys: [kv_heads, tokens, head_dim], restored.
        values: whole numbers, [kv_heads, tokens, head_dim].
        value_scales: [kv_heads, tokens, 1].
    """
    head_dim, group = queries.shape[-1], queries.shape[1] // keys.shape[0]
    rounded = restore_heads(*round_heads(queries, scale_counts(head_dim)[0]), torch.float32)
    outputs = []
    for position in range(len(queries)):
        own = rounded[position].unflatten(0, (-1, group))
        scores = own @ keys[:, : position + 1].transpose(1, 2) * head_dim**-0.5
        weights = torch.softmax(scores, -1)
        total = torch.zeros_like(own)
        for start in range(0, position + 1, 64):
            block = slice(start, min(start + 64, position + 1))
            products = weights[:, :, block] * value_scales[:, None, block, 0]
            unit = products.amax(-1, keepdim=True) / 255
            total += torch.round(products / unit) @ values[:, block] * unit
        outputs.append(total.flatten())
    return torch.stack(outputs)


@needs_kernels
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_and_chunks_change_no_bit(level: str, dtype: torch.dtype) -> None:
    conversations = make_conversations(64, dtype)
    together = Storage(64).attend([(number, 0, one) for number, one in enumerate(conversations)], level)
    for number, own in enumerate(together.split(LENGTHS)):
        storage, parts = Storage(64), []
        for first in range(0, LENGTHS[number], 7):
            new = conversations[number].part(first, first + 7)
            parts.append(storage.attend([(number, first, new)], level))
        assert torch.equal(torch.cat(parts), own)


@needs_kernels
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(two_threads: None, level: str, dtype: torch.dtype) -> None:
    parts = [(number, 0, one) for number, one in enumerate(make_conversations(64, dtype))]
    together = Storage(64).attend(parts, level)
    torch.set_num_threads(1)
    assert torch.equal(Storage(64).attend(parts, level), together)


@needs_kernels
def test_tensors_that_do_not_fit_are_refused() -> None:
    one = make_conversations(64, torch.bfloat16)[1]
    storage = Storage(64)
    storage.scales = (storage.scales[0], storage.scales[1][:, :100])
    with pytest.raises(ValueError, match=r"9 tokens do not fit.*\(2, 100, 1\)"):
        storage.attend([(1, 0, one)])
    storage.scales = (Storage(64).scales[0], not_aligned(KV_HEADS * SLOTS).view(KV_HEADS, SLOTS, 1))
    with pytest.raises(ValueError, match=r"9 tokens do not fit.* not aligned"):
        storage.attend([(1, 0, one)])
    paged = PagedAttention.of([(9, 0, RUNS[1])], CachedLayers([storage.keys], [storage.values]))
    with pytest.raises(ValueError, match="int8"):
        paged.attend(0, one.queries, one.keys, one.values)
    numbers = torch.zeros(KV_HEADS, SLOTS, 64, dtype=torch.bfloat16)
    paged = PagedAttention.of([(9, 0, RUNS[1])], CachedLayers([numbers], [numbers], [Storage(64).scales]))
    with pytest.raises(ValueError, match="do not fit"):
        paged.attend(0, one.queries, one.keys, one.values)


@needs_kernels
def test_bytes_are_attended_to_by_the_types_that_have_kernels() -> None:
    assert can_attend(torch.empty(1, 64, dtype=torch.int8), torch.bfloat16)
    assert not can_attend(torch.empty(1, 64, dtype=torch.int8), torch.float16)
    assert not can_attend(torch.empty(1, 48, dtype=torch.int8), torch.float32)


@pytest.mark.parametrize("head_dim", [16, 48, 64, 80, 128])
def test_bytes_are_within_half_a_step_of_what_was_stored(head_dim: int) -> None:
    heads = torch.randn(50, 3, head_dim, generator=torch.Generator().manual_seed(2))
    numbers, scales = round_heads(heads, scale_counts(head_dim)[0])
    steps = scales.repeat_interleave(key_group(head_dim), -1)
    assert ((restore_heads(numbers, scales, torch.float32) - heads).abs() <= 0.5001 * steps).all()
    assert numbers.abs().amax() == 127


def test_what_is_no_number_stays_none() -> None:
    heads = torch.zeros(1, 1, 64)
    heads[..., 40] = torch.inf
    restored = restore_heads(*round_heads(heads, 2), torch.float32)
    assert (restored[..., :32] == 0).all()
    assert restored[..., 32:].isnan().all()
