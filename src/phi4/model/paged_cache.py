"""Keys and values of many conversations in one storage, in blocks that conversations may share."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from phi4.config import DecoderConfig


class PagedCache:
    """Storage for a fixed number of tokens, for all layers; whose they are is not known here.

    Each layer's keys and values are stored as [kv_heads, slots, head_dim]: the slots of neighbouring blocks are
    neighbours, so that a conversation whose blocks are neighbours is read as a view, one head after the other. On the
    CPU the operating system provides memory for what was written only.

    Attributes:
        num_blocks: blocks of the storage.
        block_tokens: slots, one for each token, in a block.
    """

    def __init__(
        self, config: DecoderConfig, num_blocks: int, block_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        shape = (config.num_key_value_heads, num_blocks * block_tokens, config.head_dim)
        layers = range(config.num_hidden_layers)
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]

    @property
    def memory_bytes(self) -> int:
        """Bytes of the whole storage."""
        return sum(storage.nbytes for storage in (*self.keys, *self.values))

    def row(self, blocks: Sequence[int]) -> "CacheRow":
        """The slots of a conversation that is kept in these blocks, in its order."""
        runs: list[tuple[int, int]] = []
        for block in blocks:
            start, stop = block * self.block_tokens, (block + 1) * self.block_tokens
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], stop)
            else:
                runs.append((start, stop))
        return CacheRow(self, tuple(runs))


@dataclass(frozen=True)
class CacheRow:
    """Where the tokens of one conversation are kept.

    Attributes:
        cache: the storage.
        runs: neighbouring slots, first <= slot < last, in the order of the conversation's tokens.
    """

    cache: PagedCache
    runs: tuple[tuple[int, int], ...]

    def write(
        self, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores new tokens of one layer and returns that layer's whole history.

        Args:
            layer: index of the decoder layer.
            start: how many tokens of the conversation are cached already.
            keys: [tokens, kv_heads, head_dim], rotated.
            values: [tokens, kv_heads, head_dim].

        Returns:
            keys and values of all tokens so far, each [kv_heads, start + tokens, head_dim]: views of the storage where
            the slots are neighbours, copies otherwise.
        """
        end = start + keys.shape[0]
        stored_keys, stored_values = self.cache.keys[layer], self.cache.values[layer]
        keys, values = keys.transpose(0, 1), values.transpose(0, 1)
        for first, last, position in self._pieces(start, end):
            written = slice(position - start, position - start + last - first)
            stored_keys[:, first:last] = keys[:, written]
            stored_values[:, first:last] = values[:, written]
        history = self._pieces(0, end)
        return _gather(stored_keys, history), _gather(stored_values, history)

    def _pieces(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Slots of the tokens start <= i < end: first and last slot of each run, and the position of the first."""
        pieces = []
        position = 0
        for first, last in self.runs:
            low, high = max(position, start), min(position + last - first, end)
            if low < high:
                pieces.append((first + low - position, first + high - position, low))
            position += last - first
        return pieces


def _gather(storage: torch.Tensor, pieces: Sequence[tuple[int, int, int]]) -> torch.Tensor:
    if len(pieces) == 1:
        first, last, _ = pieces[0]
        return storage[:, first:last]
    return torch.cat([storage[:, first:last] for first, last, _ in pieces], dim=1)
