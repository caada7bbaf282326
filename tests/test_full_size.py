"""Parameter counts of both models, read from random checkpoints at full size (facts sheet 6.4, 10.1)."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from phi4.checkpoint.initialise import initialise
from phi4.checkpoint.inspect import inspect_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Up to 11 GB, gone when the test is."""
    yield tmp_path / "model"
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("preset", "num_tensors", "num_values"), [("mini", 194, 3_836_021_760), ("multimodal", 2047, 5_574_460_384)]
)
def test_a_full_size_checkpoint_has_the_released_counts(
    preset: str, num_tensors: int, num_values: int, directory: Path
) -> None:
    initialise(preset, directory)
    report = inspect_checkpoint(directory)
    assert (report.num_tensors, report.total_values) == (num_tensors, num_values)
    assert report.cache is not None
    assert report.cache.bytes_per_token == 131_072
    assert report.cache.share_of_multi_head == pytest.approx(1 / 3)
