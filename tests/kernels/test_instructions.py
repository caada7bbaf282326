import shutil

import pytest

from phi4.kernels.instructions import LEVELS, NATIVE


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler")
def test_where_there_is_a_compiler_the_kernels_were_compiled() -> None:
    assert NATIVE is not None, "the build failed and plain torch serves; see `cmake -S . -B build/kernels`"


@pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")
def test_every_processor_has_the_plain_level_last() -> None:
    assert LEVELS[-1] == "plain"
