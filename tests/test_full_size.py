"""Random checkpoints at full size: parameter counts (facts sheet 6.4, 10.1), and the memory of a quantised one."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phi4.checkpoint.initialise import initialise
from phi4.checkpoint.inspect import inspect_checkpoint
from phi4.checkpoint.quantise import SCHEMES, quantise

pytestmark = pytest.mark.slow

# Loads a model, answers one token and prints the most memory that this took.
ANSWER = """
import sys
from pathlib import Path

from phi4.checkpoint.weights import load_model
from phi4.engine.engine import Engine
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.inputs import ModelInputs
from phi4.memory import peak_resident_bytes

engine = Engine(load_model(Path(sys.argv[1])).model, (), cache_tokens=1024)
tokens = list(engine.submit(Request(ModelInputs((1, 2, 3), ()), Sampling(max_tokens=1))))
assert len(tokens) == 1
print(peak_resident_bytes())
"""


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


def test_a_quantised_model_answers_in_little_more_memory_than_its_file(directory: Path) -> None:
    quantised = directory.with_name("4bit")
    initialise("mini", directory)
    quantise(directory, quantised, SCHEMES["4bit"])
    command = [sys.executable, "-c", ANSWER, str(quantised)]
    answered = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answered.returncode == 0, answered.stderr
    assert int(answered.stdout) <= 1.15 * sum(file.stat().st_size for file in quantised.glob("*.safetensors"))
