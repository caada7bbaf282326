"""What the tests of the data layer share."""

import hypothesis
import pytest

from phi4.checkpoint.weights import LoadedModel
from phi4.processing.processor import Processor

# Tests are never timed: a slow machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def processor(tiny: LoadedModel) -> Processor:
    return Processor.load(tiny.directory, tiny.config, tiny.preprocessor)
