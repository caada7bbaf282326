"""How large the key/value cache of a model is unless somebody says."""

import torch

from phi4.config import DecoderConfig
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
