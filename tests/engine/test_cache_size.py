"""The cache is as large as it is useful or as somebody says, and no larger than the machine."""

from dataclasses import replace

import pytest
import torch

from phi4.checkpoint.presets import load_preset
from phi4.engine import cache_size
from phi4.engine.cache_size import check_cache_tokens, default_cache_tokens
from phi4.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("memory_bytes", "expected"), [(2**30, 2048), (16 * 2**30, 32_768), (1024 * 2**30, 131_072)])
def test_mini_takes_a_quarter_of_the_memory_or_its_context(
    monkeypatch: pytest.MonkeyPatch, memory_bytes: int, expected: int
) -> None:
    monkeypatch.setattr(cache_size, "memory_bytes", lambda device: memory_bytes)
    assert default_cache_tokens(load_preset("mini").config.decoder, torch.bfloat16, CPU) == expected


def test_a_model_with_a_short_context_has_room_for_many_conversations() -> None:
    config = replace(load_preset("tiny").config.decoder, max_position_embeddings=100)
    assert default_cache_tokens(config, torch.float32, CPU) == 32_768


def test_bytes_leave_room_for_almost_twice_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of mini takes 131,072 bytes in bf16; of int8, 65,536 and 1,280 scales of 4 bytes each."""
    monkeypatch.setattr(cache_size, "memory_bytes", lambda device: 4 * 2**30)
    config = load_preset("mini").config.decoder
    assert default_cache_tokens(config, torch.bfloat16, CPU) == 2**30 // 131_072
    assert default_cache_tokens(config, torch.int8, CPU) == 2**30 // (65_536 + 5_120)


@pytest.mark.parametrize(
    ("tokens", "said"), [(0, "at least 1 token, not 0"), (10_000, "takes 1.2 GiB, and cpu has 1.0 GiB; ask for 8,192")]
)
def test_what_no_cache_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch, tokens: int, said: str) -> None:
    """A token of mini takes 131,072 bytes in bf16."""
    monkeypatch.setattr(cache_size, "memory_bytes", lambda device: 2**30)
    config = load_preset("mini").config.decoder
    assert check_cache_tokens(8192, config, torch.bfloat16, CPU) == 8192
    with pytest.raises(ConfigError, match=said):
        check_cache_tokens(tokens, config, torch.bfloat16, CPU)
