"""Runs a function on sequences of numbers in other processes, ahead of when its results are asked for."""

import io
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, Dataset

# A process works on so many numbers at a time; each such piece of work costs the asking process about 0.1 ms.
PIECE = 8

Result = TypeVar("Result")


class Ahead(Generic[Result]):
    """Computes function(number) for several sequences of numbers, all of them in the same few processes."""

    def __init__(self, function: Callable[[int], Result], firsts: Sequence[int], stride: int, workers: int) -> None:
        """Plans the work; it begins when the first result is asked for.

        Args:
            function: depends on its number alone; its results are pickled.
            firsts: the number that each sequence begins with.
            stride: from one number of a sequence to the next.
            workers: how many processes; each is a fork of this one, so that the function need not be pickled.
        """
        self._stride = stride
        # Results of many sequences wait for each other in memory; those of few are worth larger pieces.
        self._piece = PIECE if len(firsts) <= workers else 1
        self._following = list(firsts)
        self._ready: list[deque[Result]] = [deque() for _ in firsts]
        self._underway = [0] * len(firsts)
        self._pieces: DataLoader[bytes] = DataLoader(
            _Pieces(function),
            sampler=self._due(),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4,
            multiprocessing_context="fork",
            worker_init_fn=_begin_worker,
        )
        self._results: Iterator[bytes] | None = None

    def next(self, sequence: int) -> Result:
        """Returns the next result of one of the sequences, by its place among `firsts`."""
        if self._results is None:
            self._results = iter(self._pieces)
        while not self._ready[sequence]:
            found, results = pickle.loads(next(self._results))  # noqa: S301 - this process's own forks wrote it
            self._underway[found] -= len(results)
            self._ready[found].extend(results)
        return self._ready[sequence].popleft()

    def _due(self) -> Iterator[tuple[int, range]]:
        """Pieces without an end: each of the sequence of which the fewest results are there or underway."""
        while True:
            waiting = [len(ready) + underway for ready, underway in zip(self._ready, self._underway, strict=True)]
            sequence = waiting.index(min(waiting))
            start = self._following[sequence]
            stop = self._following[sequence] = start + self._piece * self._stride
            self._underway[sequence] += self._piece
            yield sequence, range(start, stop, self._stride)


class _Pieces(Dataset[bytes]):
    """Results as bytes, with tensors as arrays: torch would share each small tensor through a file of its own."""

    def __init__(self, function: Callable[[int], Any]) -> None:
        self.function = function

    def __getitem__(self, piece: tuple[int, range]) -> bytes:
        sequence, numbers = piece
        file = io.BytesIO()
        pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = {torch.Tensor: _tensor_as_array}
        pickler.dump((sequence, [self.function(number) for number in numbers]))
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
