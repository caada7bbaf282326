"""The product of packed rows with a weight matrix, in the one place where its speed is decided."""

import torch
from torch.nn import functional


def linear(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[tokens, in_features] times the transposed [out_features, in_features]: [tokens, out_features].

    On the CPU a single bf16 row takes a slow path of the stock library: two rows read the weights 10 to 20 %
    faster than one (benchmarks/linear_rows.py), so a lone row is run twice.
    """
    if hidden.shape[0] == 1 and hidden.dtype == torch.bfloat16 and hidden.device.type == "cpu":
        return functional.linear(hidden.expand(2, -1), weight)[:1]
    return functional.linear(hidden, weight)
