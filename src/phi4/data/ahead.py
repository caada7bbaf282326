"""Runs a function on a sequence of numbers in other processes, ahead of when its results are asked for."""

import io
import os
import pickle
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, Dataset

# A process works on so many numbers at a time; each such piece of work costs the asking process about 0.1 ms.
PIECE = 8

Result = TypeVar("Result")


def computed_ahead(function: Callable[[int], Result], first: int, stride: int, workers: int) -> Iterator[Result]:
    """Yields function(first), function(first + stride), ... in this order, without an end.

    Args:
        function: depends on its number alone; its results are pickled.
        first: number to begin with.
        stride: from one number to the next.
        workers: how many processes; each is a fork of this one, so that the function need not be pickled.
    """
    pieces: DataLoader[bytes] = DataLoader(
        _Pieces(function),
        sampler=(range(start, start + PIECE * stride, stride) for start in count(first, PIECE * stride)),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context="fork",
        worker_init_fn=_begin_worker,
    )
    for piece in pieces:
        yield from pickle.loads(piece)  # noqa: S301 - this process's own forks wrote it


class _Pieces(Dataset[bytes]):
    """Results as bytes, with tensors as arrays: torch would share each small tensor through a file of its own."""

    def __init__(self, function: Callable[[int], Any]) -> None:
        self.function = function

    def __getitem__(self, numbers: range) -> bytes:
        file = io.BytesIO()
        pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = {torch.Tensor: _tensor_as_array}
        pickler.dump([self.function(number) for number in numbers])
        return file.getvalue()


def _tensor_as_array(tensor: torch.Tensor) -> tuple[Any, ...]:
    # As bytes, since numpy has no bf16.
    values = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return _tensor_of_bytes, (values, tensor.dtype, tensor.shape)


def _tensor_of_bytes(values: np.ndarray, dtype: torch.dtype, shape: torch.Size) -> torch.Tensor:
    return torch.from_numpy(values).view(dtype).reshape(shape)


def _begin_worker(_: int) -> None:
    # Ctrl-C and `timeout` signal all processes of a group; the one that trains says when the work is over.
    os.setpgid(0, 0)
    # The process that trains must not wait for a core, and threads of many processes would wait for each other.
    os.nice(5)
    threadpool_limits(1)
    # Texts are encoded one at a time; the tokenizer would warn of threads that it does not start in a fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
