"""What a machine can do at best, measured: how fast it reads memory, and how fast it multiplies matrices."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from phi4.bench.work import Work
from phi4.kernels.quantised import BLOCK_OUTPUTS, GROUP_INPUTS, PackedWeight, multiply_packed

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
        operations_per_s: of a matrix product; a multiplication and an addition are two.
        product: what is multiplied: a type of torch, or "bytes".
    """

    read_bytes_per_s: float
    operations_per_s: float
    product: str

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype, in_bytes: bool) -> "Machine":
        """Measures a device.

        Args:
            device: to measure.
            dtype: of activations.
            in_bytes: whether they are rounded to bytes for their products with weights, as the kernels do for weights
                of 4 and 8 bits; on a CPU only.
        """
        # Two places at a time: one alone is read more slowly.
        first, second = torch.ones(2, READ_BYTES // 8, dtype=torch.float32, device=device)
        products = (_stock_product_of_bytes(), _product_of_bytes(dtype)) if in_bytes else (_product(device, dtype),)
        with torch.inference_mode():
            reading = _best_seconds(lambda: first.dot(second))
            multiplying = min(_best_seconds(product) for product in products)
        operations = 2 * math.prod(PRODUCT_SHAPE)
        name = "bytes" if in_bytes else str(dtype).removeprefix("torch.")
        return cls(READ_BYTES / reading, operations / multiplying, name)

    def floor_seconds(self, work: Work) -> float:
        """The time that no way of doing this work can fall short of on this machine."""
        return max(work.read_bytes / self.read_bytes_per_s, work.operations / self.operations_per_s)

    def bound(self, work: Work) -> str:
        """What holds this work back: "bandwidth" or "products"."""
        reading, multiplying = work.read_bytes / self.read_bytes_per_s, work.operations / self.operations_per_s
        return "bandwidth" if reading > multiplying else "products"


def _product(device: torch.device, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """The stock product of one type."""
    rows, outputs, inputs = PRODUCT_SHAPE
    hidden = torch.randn(rows, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)
    return lambda: functional.linear(hidden, weight)[0, 0]


def _stock_product_of_bytes() -> Callable[[], torch.Tensor]:
    """Torch's product of bytes, without any rounding: on many processors the quickest that there is."""
    rows, outputs, inputs = PRODUCT_SHAPE
    hidden = torch.randint(-128, 128, (rows, inputs), dtype=torch.int8)
    weight = torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8)
    return lambda: torch._int_mm(hidden, weight.T)[0, 0]


def _product_of_bytes(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """Our own product with weights of 8 bits; rounding is part of it."""
    rows, outputs, inputs = PRODUCT_SHAPE
    codes = torch.randint(256, (outputs // BLOCK_OUTPUTS, inputs // GROUP_INPUTS, 8, BLOCK_OUTPUTS, 4))
    weight = PackedWeight(codes.byte(), None, torch.ones(outputs))
    hidden = torch.randn(rows, inputs).to(dtype)
    return lambda: multiply_packed(hidden, weight)[0, 0]


def _best_seconds(function: Callable[[], torch.Tensor]) -> float:
    """The quickest of some tries after one that is not counted; `item` waits until a device has finished."""
    seconds = []
    for _ in range(TRIES + 1):
        started = time.perf_counter()
        function().item()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
