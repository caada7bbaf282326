"""Attention of all conversations of a step over the paged cache, in one native call for each layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phi4.kernels.cached_bytes import scale_counts
from phi4.kernels.instructions import DTYPES, LEVELS, NATIVE, can_run, describe, is_aligned

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
        news, caches = (queries, keys, values), (self.keys[layer], self.values[layer])
        scales = None if self.scales is None else self.scales[layer]
        if not self._fits(news, caches, scales):
            given = describe(*news, *caches, *(scales or ()))
            own = self.conversations
            raise ValueError(f"{own.num_tokens} tokens do not fit {given}; their slots end at {own.num_slots}")
        tokens, heads, head_dim = queries.shape
        kv_heads, slots, _ = caches[0].shape
        outputs = torch.empty(tokens, heads * head_dim, dtype=queries.dtype)
        self.conversations.attend(
            self.level,
            torch.get_num_threads(),
            tuple(new.data_ptr() for new in news),
            tuple(new.stride(0) for new in news),
            tuple(cache.data_ptr() for cache in caches),
            (0, 0) if scales is None else tuple(part.data_ptr() for part in scales),
            slots,
            (heads, kv_heads, head_dim),
            queries.dtype == torch.bfloat16,
            outputs.data_ptr(),
        )
        return outputs

    def _fits(self, news: Sequence[torch.Tensor], caches: Sequence[torch.Tensor], scales: Scales | None) -> bool:
        """Whether the conversations, the tensors and the kernel fit each other."""
        if any(tensor.dim() != 3 or min(tensor.shape[1:]) == 0 for tensor in (*news, *caches)):
            return False
        dtype = news[0].dtype if scales is None else torch.int8
        (tokens, heads, head_dim), (kv_heads, slots, _) = news[0].shape, caches[0].shape
        counts = scale_counts(head_dim)
        return (
            tokens == self.conversations.num_tokens
            and self.conversations.num_slots <= slots
            and kv_heads > 0
            and heads % kv_heads == 0
            and all(new.shape == (tokens, kv_heads, head_dim) for new in news[1:])
            and all(cache.shape == (kv_heads, slots, head_dim) and cache.is_contiguous() for cache in caches)
            and all(new.stride()[1:] == (head_dim, 1) for new in news)
            and all(part.shape == (kv_heads, slots, n) for part, n in zip(scales or (), counts, strict=False))
            and all(part.dtype == torch.float32 for part in scales or ())
            and all(part.is_contiguous() and part.device.type == "cpu" and is_aligned(part) for part in scales or ())
            and all(cache.dtype == dtype and can_attend(cache, news[0].dtype) for cache in caches)
            and can_run(*news)
        )


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
