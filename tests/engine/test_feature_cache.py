"""Features are kept up to a limit, never taken for those of another medium or adapter, and encoded together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from phi4.engine.feature_cache import FeatureCache
from phi4.errors import CheckpointError
from phi4.inputs import Medium


@dataclass
class Encoders:
    """Counts what it is asked to encode; 4 KiB for each medium. Nobody can encode a medium called "bad"."""

    calls: list[tuple[str, str | None]] = field(default_factory=list)
    together: list[list[str]] = field(default_factory=list)

    def encode(self, medium: Medium, adapter: str | None) -> torch.Tensor:
        if medium.digest == "bad":
            raise OverflowError("a bad medium")
        self.calls.append((medium.digest, adapter))
        return torch.full((medium.num_tokens, 64), float(len(self.calls)))

    def encode_together(self, media: Sequence[Medium], adapters: Sequence[str | None]) -> list[torch.Tensor]:
        self.together.append([medium.digest for medium in media])
        return [self.encode(*one) for one in zip(media, adapters, strict=True)]


@pytest.fixture
def encoders() -> Any:
    return Encoders()


def sound(digest: str) -> Medium:
    return Medium("speech", None, start=0, num_tokens=16, digest=digest)


def encode(cache: FeatureCache, digest: str, adapter: str = "speech") -> torch.Tensor:
    (features,) = cache.encode([(sound(digest), adapter)])
    assert isinstance(features, torch.Tensor)
    return features


def test_equal_media_are_encoded_once_for_each_adapter(encoders: Any) -> None:
    cache = FeatureCache(encoders, max_bytes=2**20)
    first = encode(cache, "a")
    assert encode(cache, "a") is first
    assert not torch.equal(encode(cache, "a", "vision"), first)
    assert encoders.calls == [("a", "speech"), ("a", "vision")]


def test_the_least_recently_used_features_leave_first(encoders: Any) -> None:
    cache = FeatureCache(encoders, max_bytes=8192)
    for digest in "abac":
        encode(cache, digest)
    assert cache.memory_bytes == 8192
    encode(cache, "a")
    assert [digest for digest, _ in encoders.calls] == ["a", "b", "c"]
    encode(cache, "b")
    assert [digest for digest, _ in encoders.calls] == ["a", "b", "c", "b"]


def test_one_medium_is_encoded_whatever_the_limit(encoders: Any) -> None:
    assert encode(FeatureCache(encoders, max_bytes=0), "a").shape == (16, 64)


def test_what_is_missing_is_encoded_together_and_each_medium_once(encoders: Any) -> None:
    cache = FeatureCache(encoders, max_bytes=8192)
    encode(cache, "a")
    found = cache.encode([(sound(digest), "speech") for digest in "bacbd"])
    assert encoders.together == [["b", "c", "d"]]
    assert found[0] is found[3]
    assert [int(one[0, 0]) for one in found if isinstance(one, torch.Tensor)] == [2, 1, 3, 2, 4]
    assert cache.memory_bytes == 8192


def test_a_medium_that_fails_does_so_alone(encoders: Any) -> None:
    cache = FeatureCache(encoders, max_bytes=2**20)
    first, bad, last = cache.encode([(sound(digest), "speech") for digest in ("a", "bad", "c")])
    assert isinstance(bad, OverflowError)
    assert isinstance(first, torch.Tensor)
    assert encode(cache, "c") is last


def test_features_that_are_no_numbers_are_refused_alone(encoders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"a": 1.0, "nan": torch.nan}
    monkeypatch.setattr(encoders, "encode", lambda medium, _: torch.full((medium.num_tokens, 64), value[medium.digest]))
    good, bad = FeatureCache(encoders, max_bytes=2**20).encode([(sound(one), "speech") for one in ("a", "nan")])
    assert isinstance(good, torch.Tensor)
    assert isinstance(bad, CheckpointError)
