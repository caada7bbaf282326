"""A paged cache that is full without a prompt having been read, for timing what comes behind it."""

import torch

from phi4.config import DecoderConfig
from phi4.model.paged_cache import PagedCache

BLOCK_TOKENS = 32


def full_cache(config: DecoderConfig, tokens: int, dtype: torch.dtype) -> PagedCache:
    """A cache whose slots all hold something, as though a prompt had been read."""
    cache = PagedCache(config, -(-tokens // BLOCK_TOKENS), BLOCK_TOKENS, dtype, torch.device("cpu"))
    for storage in (*cache.layers.keys, *cache.layers.values):
        storage.random_(-127, 128) if dtype == torch.int8 else storage.normal_()
    for scales in (scale for pair in cache.layers.scales or () for scale in pair):
        scales.fill_(1 / 64)
    return cache
