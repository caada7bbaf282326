"""The commands and Python of README and docs run as they stand; so do the examples."""

import os
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(language, block, id=f"{page.stem}-{language}")
    for page in PAGES
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
]
# What an example has to show; of the others it is enough that they run and say something.
EXPECTED = {
    "sensor": r"(18|19|20) of 20 held-out traces are right.*the same tokens as without the pack: True",
    "together": r"Paris.*together: True\]\n[^\n]*vision; the same together: True.*speech; the same together: True",
    "structured": r'^\{\s*"city": "[^"]+"\s*\}\n(red|green|blue)\n$',
    # What was said is not always understood: only that stands beside the right answer without being asked for.
    "demo": r"Paris\.\n.*right is: Paris.*fox\n.*right is: fox.*triangle\n.*right is: triangle"
    r".*right is: turn on.*red\n.*right is: red",
}
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the README names."""
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "picture.png")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.zeros(16000, "<i2").tobytes())
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(("language", "block"), BLOCKS)
def test_a_block_runs(language: str, block: str, folder: Path) -> None:
    if "curl " in block and shutil.which("curl") is None:
        pytest.skip("no curl; install it: apt-get install curl")
    command = ["bash", "-euc", block] if language == "bash" else [sys.executable, "-c", block]
    assert run(command, folder)


def test_the_readme_has_commands_and_python() -> None:
    assert {block.id for block in BLOCKS} >= {"README-bash", "README-python"}


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs" / "decisions").glob("*.md"))], ids=lambda p: p.stem)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`((?:[\w-]+/)+[\w.-]*)(?::\w+[\w.]*)?`", page.read_text()))
    places = (ROOT, ROOT / "src/phi4", ROOT / "docs")
    user_files = {"vision-lora/", "speech-lora/"}
    assert not [name for name in named - user_files if not any((place / name).exists() for place in places)]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(example: Path, folder: Path) -> None:
    assert len(example.read_text().splitlines()) <= 60
    output = run([sys.executable, str(example)], folder)
    assert re.search(EXPECTED.get(example.stem, "."), output, re.DOTALL), output
