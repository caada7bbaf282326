"""The paged cache: what is written comes back, wherever the blocks lie, and neighbours are views."""

import json
from importlib import resources

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4.checkpoint.config_json import read_decoder
from phi4.checkpoint.weights import LoadedModel
from phi4.kernels.cached_bytes import restore_heads, round_heads, scale_counts
from phi4.model.paged_cache import PagedCache, bytes_per_token


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.permutations(range(12)))
def test_pieces_of_any_length_are_read_back_as_one_history(
    tiny: LoadedModel, lengths: list[int], blocks: list[int]
) -> None:
    config = tiny.config.decoder
    cache = PagedCache(config, num_blocks=12, block_tokens=4, dtype=torch.float32, device=torch.device("cpu"))
    row = cache.row(blocks)
    history = torch.randn(2, sum(lengths), config.num_key_value_heads, config.head_dim)
    start = 0
    for length in lengths:
        for layer in range(config.num_hidden_layers):
            keys, values = row.write(layer, start, *(history[:, start : start + length] + layer))
            assert torch.equal(keys.transpose(0, 1), history[0, : start + length] + layer)
            assert torch.equal(values.transpose(0, 1), history[1, : start + length] + layer)
        start += length


def test_neighbouring_blocks_are_read_without_a_copy(tiny: LoadedModel) -> None:
    config = tiny.config.decoder
    cache = PagedCache(config, num_blocks=6, block_tokens=4, dtype=torch.float32, device=torch.device("cpu"))
    tokens = torch.zeros(10, config.num_key_value_heads, config.head_dim)
    keys, _ = cache.row([2, 3, 4]).write(0, 0, tokens, tokens)
    assert keys.data_ptr() == cache.layers.keys[0][:, 8:].data_ptr()
    scattered, _ = cache.row([1, 0, 5]).write(0, 0, tokens, tokens)
    assert torch.equal(scattered, keys)


def test_a_token_of_mini_takes_131072_bytes() -> None:
    """16 GiB at the full context, a third of what one key and value head for every query head would take."""
    raw = json.loads((resources.files("phi4.checkpoint") / "presets" / "mini" / "config.json").read_text())
    cache = PagedCache(read_decoder(raw), 4096, 32, torch.bfloat16, torch.device("meta"))
    assert cache.memory_bytes == 131_072 * 131_072


def test_bytes_are_read_back_as_they_were_rounded_wherever_the_blocks_lie(tiny: LoadedModel) -> None:
    config = tiny.config.decoder
    cache = PagedCache(config, num_blocks=6, block_tokens=4, dtype=torch.int8, device=torch.device("cpu"))
    keys, values = torch.randn(2, 10, config.num_key_value_heads, config.head_dim).bfloat16()
    expected = [
        restore_heads(*round_heads(heads, count), torch.bfloat16).transpose(0, 1)
        for heads, count in zip((keys, values), scale_counts(keys.shape[-1]), strict=True)
    ]
    for blocks in ([2, 3, 4], [5, 0, 1]):
        row = cache.row(blocks)
        row.write(0, 0, keys[:7], values[:7])
        assert all(map(torch.equal, row.write(0, 7, keys[7:], values[7:]), expected))


def test_the_bytes_of_a_cache_are_those_of_its_tokens(tiny: LoadedModel) -> None:
    for dtype in (torch.float32, torch.int8):
        cache = PagedCache(tiny.config.decoder, 6, 4, dtype, torch.device("cpu"))
        assert cache.memory_bytes == 24 * bytes_per_token(tiny.config.decoder, dtype)
