from dataclasses import dataclass, replace

import pytest
import torch

from phi4.kernels.cached_layers import CachedLayers
from phi4.kernels.instructions import LEVELS, NATIVE
from phi4.kernels.paged_attention import PagedAttention, Part, can_attend
from phi4.model.attention import attend_in_blocks

pytestmark = pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")

HEADS, KV_HEADS, SLOTS = 6, 2, 512
# New tokens, tokens before them, slots: histories of one piece and of several, and longer than a block of keys.
CONVERSATIONS: list[Part] = [
    (1, 100, [(0, 64), (128, 192)]),
    (5, 0, [(64, 80)]),
    (40, 70, [(256, 400)]),
    (1, 0, [(100, 116)]),
]


@dataclass(frozen=True)
class Case:
    """New tokens of some conversations and the storage of one layer."""

    parts: list[Part]
    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    cached_keys: torch.Tensor
    cached_values: torch.Tensor

    def attend(self, level: str | None = None) -> torch.Tensor:
        """Runs the kernel on a copy of the storage."""
        paged = PagedAttention.of(
            self.parts, CachedLayers([self.cached_keys.clone()], [self.cached_values.clone()]), level
        )
        return paged.attend(0, self.queries, self.keys, self.values)

    def alone(self, number: int, first: int, last: int) -> "Case":
        """Some of the new tokens of one conversation, those before them in the storage already."""
        start = sum(length for length, *_ in self.parts[:number])
        _, cached, runs = self.parts[number]
        keys, values = self.cached_keys.clone(), self.cached_values.clone()
        slots = slots_of(runs)[cached : cached + first]
        keys[:, slots] = self.keys[start : start + first].transpose(0, 1)
        values[:, slots] = self.values[start : start + first].transpose(0, 1)
        rows = slice(start + first, start + last)
        part = (last - first, cached + first, runs)
        return Case([part], self.queries[rows], self.keys[rows], self.values[rows], keys, values)


def slots_of(runs: list[tuple[int, int]]) -> torch.Tensor:
    return torch.cat([torch.arange(first, last) for first, last in runs])


def make_case(head_dim: int, dtype: torch.dtype) -> Case:
    generator = torch.Generator().manual_seed(1)
    tokens = sum(length for length, *_ in CONVERSATIONS)
    fused = torch.randn(tokens, HEADS + 2 * KV_HEADS, head_dim, generator=generator).to(dtype)
    storage = torch.randn(2, KV_HEADS, SLOTS, head_dim, generator=generator).to(dtype)
    return Case(CONVERSATIONS, *fused.split([HEADS, KV_HEADS, KV_HEADS], dim=1), *storage)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("head_dim", [16, 32, 64, 96, 128])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_every_level_agrees_with_plain_torch(level: str, head_dim: int, dtype: torch.dtype, error: float) -> None:
    case = make_case(head_dim, dtype)
    expected, start = [], 0
    for length, cached, runs in case.parts:
        slots, rows = slots_of(runs)[: cached + length], slice(start, start + length)
        histories = [case.cached_keys[:, slots], case.cached_values[:, slots]]
        histories[0][:, cached:] = case.keys[rows].transpose(0, 1)
        histories[1][:, cached:] = case.values[rows].transpose(0, 1)
        expected.append(attend_in_blocks(case.queries[rows].float(), *(part.float() for part in histories)))
        start += length
    assert torch.allclose(case.attend(level).float(), torch.cat(expected), atol=error)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_and_chunks_change_no_bit(level: str, dtype: torch.dtype) -> None:
    case = make_case(64, dtype)
    together = case.attend(level)
    start = 0
    for number, (length, *_) in enumerate(case.parts):
        for first in range(0, length, 7):
            last = min(first + 7, length)
            alone = case.alone(number, first, last).attend(level)
            assert torch.equal(alone, together[start + first : start + last])
        start += length


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(two_threads: None, level: str, dtype: torch.dtype) -> None:
    case = make_case(64, dtype)
    together = case.attend(level)
    torch.set_num_threads(1)
    assert torch.equal(case.attend(level), together)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_of_any_size_give_finite_outputs(level: str, dtype: torch.dtype) -> None:
    case = make_case(64, dtype)
    case.queries.mul_(1e4)
    assert case.attend(level).isfinite().all()


def test_new_tokens_are_stored_and_nothing_else_is_touched() -> None:
    case = make_case(64, torch.bfloat16)
    keys, values = case.cached_keys.clone(), case.cached_values.clone()
    PagedAttention.of(case.parts, CachedLayers([keys], [values])).attend(0, case.queries, case.keys, case.values)
    slots = torch.cat([slots_of(runs)[cached : cached + length] for length, cached, runs in case.parts])
    assert torch.equal(keys[:, slots], case.keys.transpose(0, 1))
    assert torch.equal(values[:, slots], case.values.transpose(0, 1))
    others = torch.ones(SLOTS, dtype=torch.bool)
    others[slots] = False
    assert torch.equal(keys[:, others], case.cached_keys[:, others])


def test_tensors_that_do_not_fit_are_refused() -> None:
    case = make_case(64, torch.float32)
    paged = PagedAttention.of(case.parts, CachedLayers([case.cached_keys], [case.cached_values]))
    with pytest.raises(ValueError, match="47 tokens do not fit"):
        paged.attend(0, case.queries[:-1], case.keys[:-1], case.values[:-1])
    with pytest.raises(ValueError, match="bfloat16"):
        paged.attend(0, case.queries.bfloat16(), case.keys, case.values)
    few = CachedLayers([case.cached_keys[:, :100].clone()], [case.cached_values[:, :100].clone()])
    short = PagedAttention.of(case.parts, few)
    with pytest.raises(ValueError, match="do not fit"):
        short.attend(0, case.queries, case.keys, case.values)
    with pytest.raises(ValueError, match="fewer slots than tokens"):
        PagedAttention.of([(2, 15, [(0, 16)])], CachedLayers([], []))
    for part in ((0, 3, [(0, 16)]), (2, -1, [(0, 16)]), (2**62, 2**62, [(0, 16)])):
        with pytest.raises(ValueError, match="16 slots"):
            PagedAttention.of([part], CachedLayers([], []))
    for slots in ((-8, 8), (16, 0), (0, 2**62)):
        with pytest.raises(ValueError, match="are in no cache"):
            PagedAttention.of([(2, 0, [slots])], CachedLayers([], []))
    with pytest.raises(ValueError, match="sse9"):
        case.attend("sse9")


def test_a_cache_of_other_dimensions_is_refused() -> None:
    one = torch.zeros(2, 4, 64)
    for shape in ((4, 64), (0, 16, 64), (2, 0, 64), (2, 16, 32), (1, 2, 16, 64)):
        paged = PagedAttention.of([(2, 0, [(0, 16)])], CachedLayers([torch.zeros(shape)], [torch.zeros(shape)]))
        with pytest.raises(ValueError, match="2 tokens do not fit"):
            paged.attend(0, one, one[:, :2], one[:, :2])


def test_a_step_of_no_conversations_gives_nothing() -> None:
    none, cache = torch.zeros(0, 2, 64), torch.zeros(2, 16, 64)
    assert PagedAttention.of([], CachedLayers([cache], [cache])).attend(0, none, none, none).shape == (0, 128)


def test_other_types_and_sizes_are_left_to_torch() -> None:
    assert can_attend(torch.empty(1, 64), torch.float32)
    assert not can_attend(torch.empty(1, 64, dtype=torch.float16), torch.float16)
    assert not can_attend(torch.empty(1, 48), torch.float32)
    assert not can_attend(torch.empty(1, 64, device="meta"), torch.float32)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_history_in_many_pieces_has_the_bits_of_one_that_is_whole(level: str, dtype: torch.dtype) -> None:
    case = make_case(64, dtype)
    cut = [(n, old, [(s, s + 8) for first, last in runs for s in range(first, last, 8)]) for n, old, runs in case.parts]
    assert torch.equal(replace(case, parts=cut).attend(level), case.attend(level))
