"""The product of packed rows with a weight matrix, the same bits for a row whatever stands beside it."""

import torch

from phi4.kernels.instructions import LEVELS, NATIVE

DTYPES = (torch.float32, torch.bfloat16)


def multiply(
    rows: torch.Tensor, weight: torch.Tensor, add_to: torch.Tensor | None = None, level: str | None = None
) -> torch.Tensor:
    """Multiplies rows with a transposed matrix, summed in fp32 and rounded once.

    Args:
        rows: [tokens, in_features].
        weight: [out_features, in_features].
        add_to: what the products are added to in place, before rounding, [tokens, out_features]; None for nothing.
        level: instructions to use, of `LEVELS`; None for the best.

    Returns:
        [tokens, out_features]; `add_to`, if given.

    Raises:
        ValueError: the tensors do not fit each other, or the processor lacks the instructions.
    """
    tokens, outputs = rows.shape[0], weight.shape[0]
    results = torch.empty(tokens, outputs, dtype=rows.dtype) if add_to is None else add_to
    fits = rows.shape[1] == weight.shape[1] and results.shape == (tokens, outputs) and results.dtype == rows.dtype
    if not (fits and can_multiply(rows, weight) and results.device.type == "cpu" and results.stride(1) == 1):
        shapes = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in (rows, weight, results))
        raise ValueError(f"no kernel multiplies {shapes}")
    NATIVE.multiply(  # type: ignore[union-attr]
        level or LEVELS[0],
        torch.get_num_threads(),
        (rows.data_ptr(), weight.data_ptr(), results.data_ptr()),
        (rows.stride(0), results.stride(0)),
        (tokens, outputs, rows.shape[1]),
        add_to is not None,
        rows.dtype == torch.bfloat16,
    )
    return results


def can_multiply(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether there is a kernel for tensors of this kind on this machine; none has gradients."""
    return (
        NATIVE is not None
        and not torch.is_grad_enabled()
        and rows.device.type == weight.device.type == "cpu"
        and rows.dtype == weight.dtype
        and rows.dtype in DTYPES
        and rows.stride(1) == 1
        and weight.is_contiguous()
    )
