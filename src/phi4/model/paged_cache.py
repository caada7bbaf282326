"""Keys and values of many conversations in one storage, in blocks that conversations may share."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from phi4.config import DecoderConfig
from phi4.kernels.cached_bytes import restore_heads, round_heads, scale_counts
from phi4.kernels.cached_layers import CachedLayers


def bytes_per_token(config: DecoderConfig, dtype: torch.dtype) -> int:
    """What a cache of a type takes for the keys and values of one token, in all layers."""
    scales = 0
    if dtype == torch.int8:
        heads = config.kv_values_per_token // (2 * config.head_dim)
        scales = heads * sum(scale_counts(config.head_dim)) * torch.float32.itemsize
    return config.kv_values_per_token * dtype.itemsize + scales


class PagedCache:
    """Storage for a fixed number of tokens, for all layers; whose they are is not known here.

    Each layer's keys and values are stored as [kv_heads, slots, head_dim]: the slots of neighbouring blocks are
    neighbours, so that a conversation whose blocks are neighbours is read as a view, one head after the other. On the
    CPU the operating system provides memory for what was written only.

    Storage of the type int8 takes keys and values of any type: they are rounded when they are written, with scales for
    each head.

    Attributes:
        num_blocks: blocks of the storage.
        block_tokens: slots, one for each token, in a block.
        layers: keys and values of each layer.
    """

    def __init__(
        self, config: DecoderConfig, num_blocks: int, block_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        shape = (config.num_key_value_heads, num_blocks * block_tokens, config.head_dim)
        layers = range(config.num_hidden_layers)
        keys, values = ([torch.empty(shape, dtype=dtype, device=device) for _ in layers] for _ in range(2))
        scales = None
        if dtype == torch.int8:
            of_key, of_value = ((*shape[:2], count) for count in scale_counts(config.head_dim))
            scales = [(torch.empty(of_key, device=device), torch.empty(of_value, device=device)) for _ in layers]
        self.layers = CachedLayers(keys, values, scales)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the whole storage."""
        scales = [part for parts in self.layers.scales or () for part in parts]
        return sum(storage.nbytes for storage in (*self.layers.keys, *self.layers.values, *scales))

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
            the slots are neighbours, copies otherwise; of bytes, the numbers that they stand for.
        """
        layers = self.cache.layers
        stored = layers.keys[layer], layers.values[layer]
        if layers.scales is None:
            return self._store(stored[0], start, keys), self._store(stored[1], start, values)
        histories = []
        for storage, scales, heads in zip(stored, layers.scales[layer], (keys, values), strict=True):
            new_bytes, new_scales = round_heads(heads, scales.shape[-1])
            history = self._store(storage, start, new_bytes), self._store(scales, start, new_scales)
            histories.append(restore_heads(*history, heads.dtype))
        return histories[0], histories[1]

    def _store(self, storage: torch.Tensor, start: int, new: torch.Tensor) -> torch.Tensor:
        """Stores new tokens, [tokens, kv_heads, ...]; returns all so far, [kv_heads, start + tokens, ...]."""
        end = start + new.shape[0]
        new = new.transpose(0, 1)
        for first, last, position in self._pieces(start, end):
            storage[:, first:last] = new[:, position - start : position - start + last - first]
        return _gather(storage, self._pieces(0, end))

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
