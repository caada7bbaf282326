"""Files that appear whole or not at all."""

from pathlib import Path

import pytest

from full_disk import no_file_above
from phi4.files import new_file


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new.bin"
    with pytest.raises(OSError, match=r"new\.bin"), no_file_above(1000), new_file(path) as partial:
        partial.write_bytes(bytes(10_000))
    assert not list(tmp_path.iterdir())
