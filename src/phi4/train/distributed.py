"""Data parallelism under torchrun: each process computes some rows of a step, and gradients are summed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class Group:
    """The processes that train together.

    Attributes:
        rank: number of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Adds up tensors over all processes, in place."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def maximum(self, values: Sequence[int]) -> list[int]:
        """The largest of each value over all processes."""
        tensor = torch.tensor(values)
        if self.size > 1:
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor.tolist()

    def any(self, value: bool) -> bool:
        """Whether any process says so; all of them get the same answer."""
        flag = torch.tensor(float(value))
        self.sum([flag])
        return bool(flag > 0)

    def gather(self, text: str) -> list[str]:
        """The text of each process, by rank; all of them get the same list. Nothing is pickled on the way."""
        own = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        (longest,) = self.maximum([len(own)])
        texts = torch.zeros(self.size, longest, dtype=torch.uint8)
        texts[self.rank, : len(own)] = own
        self.sum([texts])
        return [bytes(one.tolist()).rstrip(b"\0").decode() for one in texts]


def own_device(device: str) -> torch.device:
    """The device of this process: under torchrun, each process of a machine has a GPU of its own."""
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device(device)


@contextmanager
def process_group(device: torch.device) -> Iterator[Group]:
    """Joins the processes that torchrun started; without torchrun there is one."""
    if "WORLD_SIZE" not in os.environ:
        yield Group()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Counts and wishes to stop are on the CPU even where gradients are not.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(rank=distributed.get_rank(), size=distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
