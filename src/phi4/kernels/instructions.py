"""The compiled kernels, if they are there, and which of the processor's instructions they use."""

from importlib import import_module
from types import ModuleType


def _find() -> ModuleType | None:
    # torch comes first: it brings the OpenMP whose threads the kernels share.
    import torch  # noqa: F401

    try:
        return import_module("phi4.kernels.native")
    except ImportError:
        return None


# None where nothing was compiled: plain torch does the work then.
NATIVE = _find()

# The levels of instructions that this processor has, the best one first: "avx512", "avx2", "plain".
LEVELS: tuple[str, ...] = tuple(NATIVE.levels()) if NATIVE is not None else ()
