"""What the tests of the data layer share."""

import pytest

from phi4.checkpoint.weights import LoadedModel
from phi4.processing.processor import Processor


@pytest.fixture(scope="session")
def processor(tiny: LoadedModel) -> Processor:
    return Processor.load(tiny.directory, tiny.config, tiny.preprocessor)
