"""What a machine can do at best, measured: how fast it reads memory, and how fast it multiplies matrices."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from phi4.bench.work import Work

# Far more than any cache holds.
READ_BYTES = 512 * 2**20
# Rows, outputs and inputs of a product large enough for every library's best way.
PRODUCT_SHAPE = (1024, 4096, 4096)
TRIES = 5


@dataclass(frozen=True)
class Machine:
    """The best of a few tries each; what is measured against it shares the machine with whatever else runs.

    Attributes:
        read_bytes_per_s: of memory, by all threads.
        operations_per_s: of a matrix product in the model's type; a multiplication and an addition are two.
    """

    read_bytes_per_s: float
    operations_per_s: float

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype) -> "Machine":
        """Measures a device for products of one type."""
        values = torch.ones(READ_BYTES // 8, dtype=torch.int64, device=device)
        rows, outputs, inputs = PRODUCT_SHAPE
        hidden = torch.randn(rows, inputs, device=device).to(dtype)
        weight = torch.randn(outputs, inputs, device=device).to(dtype)
        with torch.inference_mode():
            reading = _best_seconds(lambda: values.amax())
            multiplying = _best_seconds(lambda: functional.linear(hidden, weight)[0, 0])
        return cls(READ_BYTES / reading, 2 * rows * outputs * inputs / multiplying)

    def floor_seconds(self, work: Work) -> float:
        """The time that no way of doing this work can fall short of on this machine."""
        return max(work.read_bytes / self.read_bytes_per_s, work.operations / self.operations_per_s)

    def bound(self, work: Work) -> str:
        """What holds this work back: "bandwidth" or "products"."""
        reading, multiplying = work.read_bytes / self.read_bytes_per_s, work.operations / self.operations_per_s
        return "bandwidth" if reading > multiplying else "products"


def _best_seconds(function: Callable[[], torch.Tensor]) -> float:
    """The quickest of some tries after one that is not counted; `item` waits until a device has finished."""
    seconds = []
    for _ in range(TRIES + 1):
        started = time.perf_counter()
        function().item()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
