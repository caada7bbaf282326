"""Features are kept up to a limit, and never taken for those of another medium or another adapter."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from phi4.engine.feature_cache import FeatureCache
from phi4.inputs import Medium


@dataclass
class Encoders:
    """Counts what it is asked to encode; 4 KiB for each medium."""

    calls: list[tuple[str, str | None]] = field(default_factory=list)

    def encode(self, medium: Medium, adapter: str | None) -> torch.Tensor:
        self.calls.append((medium.digest, adapter))
        return torch.full((medium.num_tokens, 64), float(len(self.calls)))


@pytest.fixture
def encoders() -> Any:
    return Encoders()


def sound(digest: str) -> Medium:
    return Medium("speech", None, start=0, num_tokens=16, digest=digest)


def test_equal_media_are_encoded_once_for_each_adapter(encoders: Any) -> None:
    cache = FeatureCache(encoders, max_bytes=2**20)
    first = cache.encode(sound("a"), "speech")
    assert cache.encode(sound("a"), "speech") is first
    assert not torch.equal(cache.encode(sound("a"), "vision"), first)
    assert encoders.calls == [("a", "speech"), ("a", "vision")]


def test_the_least_recently_used_features_leave_first(encoders: Any) -> None:
    cache = FeatureCache(encoders, max_bytes=8192)
    for digest in "abac":
        cache.encode(sound(digest), "speech")
    assert cache.memory_bytes == 8192
    cache.encode(sound("a"), "speech")
    assert [digest for digest, _ in encoders.calls] == ["a", "b", "c"]
    cache.encode(sound("b"), "speech")
    assert [digest for digest, _ in encoders.calls] == ["a", "b", "c", "b"]


def test_one_medium_is_encoded_whatever_the_limit(encoders: Any) -> None:
    assert FeatureCache(encoders, max_bytes=0).encode(sound("a"), "speech").shape == (16, 64)
