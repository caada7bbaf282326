"""The cache of one conversation: what is written comes back, through every growth."""

import json
from importlib import resources

import torch
from hypothesis import given
from hypothesis import strategies as st

from phi4.checkpoint.config_json import read_decoder
from phi4.checkpoint.weights import LoadedModel
from phi4.model.kv_cache import KVCache


@given(st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_pieces_of_any_length_are_read_back_as_one_history(tiny: LoadedModel, lengths: list[int]) -> None:
    config = tiny.config.decoder
    cache = KVCache(config, torch.float32, torch.device("cpu"))
    history = torch.randn(2, sum(lengths), config.num_key_value_heads, config.head_dim)
    start = 0
    for length in lengths:
        cache.reserve(start + length)
        for layer in range(config.num_hidden_layers):
            keys, values = cache.write(layer, start, *(history[:, start : start + length] + layer))
            assert torch.equal(keys.transpose(0, 1), history[0, : start + length] + layer)
            assert torch.equal(values.transpose(0, 1), history[1, : start + length] + layer)
        start += length


def test_a_token_of_mini_takes_131072_bytes() -> None:
    """16 GiB at the full context, a third of what one key and value head for every query head would take."""
    raw = json.loads((resources.files("phi4.checkpoint") / "presets" / "mini" / "config.json").read_text())
    cache = KVCache(read_decoder(raw), torch.bfloat16, torch.device("meta"))
    cache.reserve(131_072)
    assert cache.memory_bytes == 131_072 * 131_072
