import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from phi4.kernels.instructions import LEVELS, NATIVE

# What README.md says that the build needs.
NEEDED = """#include <Python.h>
#if !__has_builtin(__builtin_shufflevector)
#error too old
#endif
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler")
def test_where_there_is_all_that_the_build_needs_the_kernels_were_compiled() -> None:
    include = f"-I{sysconfig.get_path('include')}"
    command = ["c++", "-x", "c++", "-std=c++20", "-fsyntax-only", include, "-"]
    if subprocess.run(command, input=NEEDED, text=True, capture_output=True, check=False).returncode:
        pytest.skip("the compiler is too old, or lacks Python's headers")
    assert NATIVE is not None, "the build failed and plain torch serves; see `.venv/bin/pip install -v .`"


def test_sources_of_levels_use_nothing_of_the_standard_library_but_functions_of_c() -> None:
    """What it instantiates would be linked once for all levels, with the instructions of one."""
    sources = Path(__file__).parents[2] / "src" / "phi4" / "kernels" / "cpp"
    apart = {
        "module.cpp",
        "conversations.h",
        "encoder_module.cpp",
        "allocate.cpp",
        "decoder_layer.cpp",
        "decoder_layer.h",
        "team.cpp",
        "tile_trial.cpp",
    }
    text = "".join(path.read_text() for path in sources.iterdir() if path.name not in apart)
    assert set(re.findall(r"std::(\w+)\(", text)) <= {"memcpy", "memset", "free", "nearbyintf"}


@pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")
def test_every_processor_has_the_plain_level_last() -> None:
    assert LEVELS[-1] == "plain"
