"""Keys and values of one conversation, kept for all layers."""

import torch

from phi4.config import DecoderConfig

# Room is added in steps of this many tokens, and by a quarter at least, so that a growing answer is seldom copied.
GROWTH_TOKENS = 512


class KVCache:
    """Storage for one conversation; the caller says where each write begins.

    Each layer's keys and values are stored as [kv_heads, capacity, head_dim]: one head's history is contiguous, which
    is the order in which a decoding step reads it.
    """

    def __init__(self, config: DecoderConfig, dtype: torch.dtype, device: torch.device) -> None:
        empty = torch.empty((config.num_key_value_heads, 0, config.head_dim), dtype=dtype, device=device)
        self.keys = [empty] * config.num_hidden_layers
        self.values = [empty] * config.num_hidden_layers
        self.max_tokens = config.max_position_embeddings

    @property
    def capacity(self) -> int:
        """Tokens that fit before the storage has to grow."""
        return self.keys[0].shape[1]

    @property
    def memory_bytes(self) -> int:
        """Bytes held by the storage."""
        return sum(storage.nbytes for storage in (*self.keys, *self.values))

    def reserve(self, num_tokens: int) -> None:
        """Makes room for a conversation of this many tokens; what was written stays.

        Layers grow one after the other, so that never more than one of them is in memory twice.
        """
        if num_tokens <= self.capacity:
            return
        wanted = max(num_tokens, min(self.capacity + self.capacity // 4, self.max_tokens))
        capacity = -(-wanted // GROWTH_TOKENS) * GROWTH_TOKENS
        for layers in (self.keys, self.values):
            for layer, storage in enumerate(layers):
                layers[layer] = _grown(storage, capacity)

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
            keys and values of all tokens so far, each [kv_heads, start + tokens, head_dim].
        """
        end = start + keys.shape[0]
        self.keys[layer][:, start:end] = keys.transpose(0, 1)
        self.values[layer][:, start:end] = values.transpose(0, 1)
        return self.keys[layer][:, :end], self.values[layer][:, :end]


def _grown(storage: torch.Tensor, capacity: int) -> torch.Tensor:
    kv_heads, used, head_dim = storage.shape
    grown = storage.new_empty((kv_heads, capacity, head_dim))
    grown[:, :used] = storage
    return grown
