"""Attention of all conversations of a step over the paged cache, in one native call for each layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phi4.kernels.cached_bytes import scale_counts
from phi4.kernels.instructions import DTYPES, LEVELS, NATIVE, address, can_run, describe, is_aligned
from phi4.kernels.quantised import is_whole

# New tokens, tokens before them, and the slots of all of them: first <= slot < last, in the conversation's order.
Part = tuple[int, int, Sequence[tuple[int, int]]]
# Those of a layer's keys and values that are bytes, float32 [kv_heads, slots, groups] and [kv_heads, slots, 1].
Scales = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class PagedAttention:
    """The conversations of one step.

    Every token gets the same bits whatever stands beside it in a step, however its prompt was cut, and for any number
    of threads. Products are summed in fp32; those with bytes as whole numbers, where the processor multiplies them:
    queries and weights are rounded to 8 bits there (cpp/byte_attention.cpp).

    Attributes:
        conversations: what the native module knows of them.
        keys: storage of each layer, [kv_heads, slots, head_dim].
        values: [kv_heads, slots, head_dim].
        scales: of each layer, where keys and values are bytes; None where they are numbers like the queries.
        level: instructions to use.
    """

    conversations: Any
    keys: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]
    scales: Sequence[Scales] | None
    level: str

    @classmethod
    def of(
        cls,
        parts: Sequence[Part],
        keys: Sequence[torch.Tensor],
        values: Sequence[torch.Tensor],
        scales: Sequence[Scales] | None = None,
        level: str | None = None,
    ) -> "PagedAttention":
        """Describes the conversations that are laid end to end in a step.

        Args:
            parts: one for each conversation.
            keys: storage of each layer, [kv_heads, slots, head_dim].
            values: [kv_heads, slots, head_dim].
            scales: of each layer, where keys and values are bytes.
            level: instructions to use, of `LEVELS`; None for the best.

        Raises:
            ValueError: a conversation has no new token, fewer slots than tokens, or slots below 0, or nothing was
                compiled.
        """
        if NATIVE is None:
            raise ValueError("no kernels were compiled; the caller asks `can_attend` first")
        return cls(NATIVE.Conversations(parts), keys, values, scales, level or LEVELS[0])

    def attend(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Stores the new tokens of a layer, and lets each attend to its conversation up to itself.

        Args:
            layer: index of the decoder layer.
            queries: of the new tokens, rotated, [tokens, heads, head_dim].
            keys: rotated, [tokens, kv_heads, head_dim].
            values: [tokens, kv_heads, head_dim].

        Returns:
            [tokens, heads * head_dim].

        Raises:
            ValueError: the tensors do not fit the conversations or each other, or the processor lacks the instructions.
        """
        news = (queries, keys, values)
        if not (_are_heads(*news) and self.holds(layer, queries.dtype, *queries.shape[:2]) and self._take(layer, news)):
            given = describe(*news, self.keys[layer], self.values[layer], *(self.scales[layer] if self.scales else ()))
            own = self.conversations
            raise ValueError(f"{own.num_tokens} tokens do not fit {given}; their slots end at {own.num_slots}")
        tokens, heads, head_dim = queries.shape
        outputs = torch.empty(tokens, heads * head_dim, dtype=queries.dtype)
        self.conversations.attend(
            self.level,
            torch.get_num_threads(),
            tuple(new.data_ptr() for new in news),
            tuple(new.stride(0) for new in news),
            *self.storage(layer),
            (heads, keys.shape[1], head_dim),
            queries.dtype == torch.bfloat16,
            outputs.data_ptr(),
        )
        return outputs

    def storage(self, layer: int) -> tuple[tuple[int, int], tuple[int, int], int]:
        """Where keys and values of a layer are, and their scales, 0 for none; and how many slots there are."""
        keys, values = self.keys[layer], self.values[layer]
        key_scales, value_scales = (None, None) if self.scales is None else self.scales[layer]
        return (keys.data_ptr(), values.data_ptr()), (address(key_scales), address(value_scales)), keys.shape[1]

    def holds(self, layer: int, dtype: torch.dtype, tokens: int, heads: int) -> bool:
        """Whether so many new tokens with queries of a type are those of the conversations, and a layer has room."""
        caches, scales = (self.keys[layer], self.values[layer]), () if self.scales is None else self.scales[layer]
        if not _are_heads(*caches):
            return False
        kv_heads, slots, head_dim = caches[0].shape
        stored = dtype if self.scales is None else torch.int8
        return (
            tokens == self.conversations.num_tokens
            and self.conversations.num_slots <= slots
            and kv_heads > 0
            and heads % kv_heads == 0
            and all(cache.shape == (kv_heads, slots, head_dim) and cache.is_contiguous() for cache in caches)
            and all(cache.dtype == stored and can_attend(cache, dtype) for cache in caches)
            and all(
                part.shape == (kv_heads, slots, count) and is_whole(part, torch.float32, caches[0].device)
                for part, count in zip(scales, scale_counts(head_dim), strict=False)
            )
        )

    def _take(self, layer: int, news: Sequence[torch.Tensor]) -> bool:
        """Whether queries, keys and values are those of as many tokens, with heads like a layer's."""
        kv_heads, _, head_dim = self.keys[layer].shape
        tokens, heads, _ = news[0].shape
        shapes = ((tokens, heads, head_dim), (tokens, kv_heads, head_dim), (tokens, kv_heads, head_dim))
        return (
            all(new.shape == shape for new, shape in zip(news, shapes, strict=True))
            and all(new.stride()[1:] == (head_dim, 1) for new in news)
            and can_run(*news)
        )


def _are_heads(*tensors: torch.Tensor) -> bool:
    """Whether tensors have the dimensions [..., heads or slots, head_dim], and none of the last two is 0."""
    return all(tensor.dim() == 3 and min(tensor.shape[1:]) > 0 for tensor in tensors)


def can_attend(stored: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for stored heads, [..., head_dim], and queries of a type; none has gradients."""
    return (
        NATIVE is not None
        and not torch.is_grad_enabled()
        and dtype in DTYPES
        and stored.dtype in (dtype, torch.int8)
        and stored.device.type == "cpu"
        and stored.dim() > 0
        and is_aligned(stored)
        and bool(NATIVE.has_head_dim(stored.shape[-1]))
    )
