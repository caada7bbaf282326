"""How large the key/value cache of a model is, and what nobody may ask for."""

import torch

from phi4.config import DecoderConfig
from phi4.errors import ConfigError
from phi4.memory import memory_bytes
from phi4.model.paged_cache import bytes_per_token

# Enough for many conversations of a small model; a large one is bounded by the memory of the machine.
MIN_TOKENS_WANTED = 32_768
# The rest is for weights, activations and others.
SHARE_OF_MEMORY = 0.25


def default_cache_tokens(config: DecoderConfig, dtype: torch.dtype, device: torch.device) -> int:
    """One whole context or 32,768 tokens, whichever is more, but no more than a quarter of the device's memory."""
    wanted = max(config.max_position_embeddings, MIN_TOKENS_WANTED)
    affordable = int(SHARE_OF_MEMORY * memory_bytes(device)) // bytes_per_token(config, dtype)
    return min(wanted, affordable)


def check_cache_tokens(tokens: int, config: DecoderConfig, dtype: torch.dtype, device: torch.device) -> int:
    """Returns a size that somebody asked for.

    Raises:
        ConfigError: there would be no token in it, or it is larger than the device's memory.
    """
    if tokens < 1:
        raise ConfigError(f"the cache must hold at least 1 token, not {tokens}; leave the number out to go by memory")
    needed, there = tokens * bytes_per_token(config, dtype), memory_bytes(device)
    if needed > there:
        raise ConfigError(
            f"a cache of {tokens:,} tokens takes {needed / 2**30:,.1f} GiB, and {device} has {there / 2**30:,.1f} GiB; "
            f"ask for {there // bytes_per_token(config, dtype):,} tokens at the very most"
        )
    return tokens
