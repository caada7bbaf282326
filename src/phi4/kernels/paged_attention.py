"""Attention of all conversations of a step over the paged cache, in one native call for each layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phi4.kernels.cached_layers import CachedLayers
from phi4.kernels.instructions import DTYPES, LEVELS, NATIVE, can_run, describe, is_aligned

# New tokens, tokens before them, and the slots of all of them: first <= slot < last, in the conversation's order.
Part = tuple[int, int, Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class PagedAttention:
    """The conversations of one step.

    Every token gets the same bits whatever stands beside it in a step, however its prompt was cut, and for any number
    of threads. Products are summed in fp32; those with bytes as whole numbers, where the processor multiplies them:
    queries and weights are rounded to 8 bits there (cpp/byte_attention.cpp).

    Attributes:
        conversations: what the native module knows of them.
        stored: the keys and values of all layers.
        level: instructions to use.
    """

    conversations: Any
    stored: CachedLayers
    level: str

    @classmethod
    def of(cls, parts: Sequence[Part], stored: CachedLayers, level: str | None = None) -> "PagedAttention":
        """Describes the conversations that are laid end to end in a step.

        Args:
            parts: one for each conversation.
            stored: the keys and values of all layers.
            level: instructions to use, of `LEVELS`; None for the best.

        Raises:
            ValueError: a conversation has no new token, fewer slots than tokens, or slots below 0, or nothing was
                compiled.
        """
        if NATIVE is None:
            raise ValueError("no kernels were compiled; the caller asks `can_attend` first")
        return cls(NATIVE.Conversations(parts), stored, level or LEVELS[0])

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
        if not (_are_heads(*news) and self.holds(queries.dtype, *queries.shape[:2]) and self._take(news)):
            own, stored = self.conversations, self.stored
            scales = stored.scales[layer] if stored.scales else ()
            given = describe(*news, stored.keys[layer], stored.values[layer], *scales)
            raise ValueError(f"{own.num_tokens} tokens do not fit {given}; their slots end at {own.num_slots}")
        tokens, heads, head_dim = queries.shape
        outputs = torch.empty(tokens, heads * head_dim, dtype=queries.dtype)
        self.conversations.attend(
            self.level,
            torch.get_num_threads(),
            tuple(new.data_ptr() for new in news),
            tuple(new.stride(0) for new in news),
            *self.stored.addresses[layer],
            self.stored.keys[layer].shape[1],
            (heads, keys.shape[1], head_dim),
            queries.dtype == torch.bfloat16,
            outputs.data_ptr(),
        )
        return outputs

    def holds(self, dtype: torch.dtype, tokens: int, heads: int) -> bool:
        """Whether so many new tokens with queries of a type are those of the conversations, and there is room."""
        if not (self.stored.fits and can_attend(self.stored.keys[0], dtype)):
            return False
        kv_heads, slots, _ = self.stored.keys[0].shape
        own = self.conversations
        return tokens == own.num_tokens and own.num_slots <= slots and heads % kv_heads == 0

    def _take(self, news: Sequence[torch.Tensor]) -> bool:
        """Whether queries, keys and values are those of as many tokens, with heads like the stored ones."""
        kv_heads, _, head_dim = self.stored.keys[0].shape
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
