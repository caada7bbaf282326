"""The compiled kernels, if they are there, which of the processor's instructions they use, and what they take."""

from importlib import import_module
from typing import Any

import torch

DTYPES = (torch.float32, torch.bfloat16)


def _find() -> Any:
    try:
        return import_module("phi4.kernels.native")
    except ImportError:
        return None


# None where nothing was compiled: plain torch does the work then.
NATIVE = _find()

# The levels of instructions that this processor has, the best one first: of "amx", "avx512_bf16",
# "avx512_vnni", "avx512", "avx2", "plain".
LEVELS: tuple[str, ...] = tuple(NATIVE.levels()) if NATIVE is not None else ()


def can_run(*tensors: torch.Tensor) -> bool:
    """Whether kernels take tensors of this kind together: on the CPU, of one type, with neighbouring aligned values.

    None has gradients: where they are kept, the answer is no.
    """
    # A loop, since this runs before every kernel: for one token, Python is a tenth of the time.
    dtype = tensors[0].dtype
    if NATIVE is None or dtype not in DTYPES or torch.is_grad_enabled():
        return False
    for tensor in tensors:
        if not tensor.is_cpu or tensor.dtype != dtype or not tensor.dim() or tensor.stride(-1) != 1:
            return False
        if not is_aligned(tensor):
            return False
    return True


def is_aligned(tensor: torch.Tensor) -> bool:
    """Whether the values of a tensor on the CPU stand where the processor expects values of their size."""
    return tensor.data_ptr() % tensor.itemsize == 0


def address(tensor: torch.Tensor | None) -> int:
    """Where a tensor's values begin, for native code; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def can_be_written(tensor: torch.Tensor) -> bool:
    """Whether no row of [rows, ...] reaches into the next, as expanded ones do: threads write rows in any order."""
    return tensor.shape[0] < 2 or tensor.stride(0) >= tensor.shape[1:].numel()


def describe(*tensors: torch.Tensor) -> str:
    """What tensors are, for errors. Native code believes what it is told, so nothing may reach it that misfits."""
    kept = " while gradients are kept" if torch.is_grad_enabled() else ""
    return ", ".join(map(_describe, tensors)) + kept


def _describe(tensor: torch.Tensor) -> str:
    """Shape and type, and what else is unusual."""
    words = [f"{tuple(tensor.shape)} {tensor.dtype}"]
    if tensor.device.type != "cpu":
        words.append(f"on {tensor.device}")
    elif not is_aligned(tensor):
        words.append("not aligned")
    if not tensor.is_contiguous():
        words.append(f"with strides {tensor.stride()}")
    return " ".join(words)
