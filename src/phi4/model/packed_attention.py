"""Causal attention within all conversations of a packed row at once, where a kernel call costs more than padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from phi4.model.encoder_batches import split_batches

# Keys of a group, padding included. Conversations of like lengths are in a group.
MAX_GROUP_KEYS = 65536

# The stock kernels copy a mask whose rows are not a multiple of so many long.
KEY_MULTIPLE = 8


@dataclass(frozen=True)
class AttentionGroup:
    """Conversations that are computed together, padded to the longest of them.

    Attributes:
        rows: packed row of each query, [conversations, queries].
        history: packed row of each key, [conversations, keys].
        visible: bool, what each query sees, [conversations, 1, queries, keys]; queries of the padding see something.
    """

    rows: torch.Tensor
    history: torch.Tensor
    visible: torch.Tensor


@dataclass(frozen=True)
class PackedAttention:
    """Where the queries and keys of each conversation stand in a packed row, for all layers of one pass.

    Attributes:
        groups: each conversation is in one of them.
        places: of every packed row among the queries of all groups, end to end, [tokens].
    """

    groups: tuple[AttentionGroup, ...]
    places: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], prefixes: Sequence[int | None], device: torch.device) -> "PackedAttention":
        """Plans the pass.

        Args:
            lengths: tokens of each segment, laid end to end.
            prefixes: the earlier segment that a segment goes on from, or None.
            device: of the queries and keys.
        """
        rows = list(torch.arange(sum(lengths)).split(list(lengths)))
        histories: list[torch.Tensor] = []
        for own, prefix in zip(rows, prefixes, strict=True):
            histories.append(own if prefix is None else torch.cat((histories[prefix], own)))
        places = torch.empty(sum(lengths), dtype=torch.long)
        groups: list[AttentionGroup] = []
        begin = 0
        for members in split_batches([len(history) for history in histories], MAX_GROUP_KEYS):
            group = plan_group([rows[member] for member in members], [histories[member] for member in members])
            num_queries = group.rows.shape[1]
            for member in members:
                places[rows[member]] = begin + torch.arange(lengths[member])
                begin += num_queries
            groups.append(AttentionGroup(*(tensor.to(device) for tensor in vars(group).values())))
        return cls(tuple(groups), places.to(device))

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Lets every token attend to its own conversation up to itself.

        Args:
            queries: [tokens, heads, head_dim].
            keys: [tokens, kv_heads, head_dim].
            values: [tokens, kv_heads, head_dim].

        Returns:
            [tokens, heads * head_dim].
        """
        share = queries.shape[1] // keys.shape[1]
        outputs = []
        for group in self.groups:
            # The stock kernels that take a mask do not share a key head among queries.
            output = functional.scaled_dot_product_attention(
                take_rows(queries, group.rows),
                take_rows(keys, group.history).repeat_interleave(share, dim=1),
                take_rows(values, group.history).repeat_interleave(share, dim=1),
                attn_mask=group.visible,
            )
            outputs.append(output.transpose(1, 2).flatten(2).flatten(0, 1))
        return torch.cat(outputs)[self.places]


def plan_group(rows: Sequence[torch.Tensor], histories: Sequence[torch.Tensor]) -> AttentionGroup:
    """Pads conversations to the longest.

    Args:
        rows: packed rows of each conversation's queries.
        histories: packed rows of its keys, which end with those of its queries.
    """
    num_queries = max(map(len, rows))
    num_keys = max(map(len, histories))
    num_keys += -num_keys % KEY_MULTIPLE
    padded_rows = torch.zeros(len(rows), num_queries, dtype=torch.long)
    padded_histories = torch.zeros(len(rows), num_keys, dtype=torch.long)
    last_seen = torch.empty(len(rows), num_queries, dtype=torch.long)
    for place, (own, history) in enumerate(zip(rows, histories, strict=True)):
        padded_rows[place, : len(own)] = own
        padded_histories[place, : len(history)] = history
        last_seen[place] = len(history) - len(own) + torch.arange(num_queries).clamp(max=len(own) - 1)
    visible = torch.arange(num_keys) <= last_seen[:, None, :, None]
    return AttentionGroup(padded_rows, padded_histories, visible)


def take_rows(heads: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Gathers packed rows, some several times: [tokens, heads, head_dim] -> [conversations, heads, rows, head_dim].

    A lookup of embeddings, since its backward pass adds up in fp32 and in a fixed order.
    """
    taken = functional.embedding(rows, heads.flatten(1))
    return taken.unflatten(-1, heads.shape[1:]).transpose(1, 2)
