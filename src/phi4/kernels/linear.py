"""The product of packed rows with a weight matrix, the same bits for a row whatever stands beside it."""

import torch

from phi4.kernels.instructions import LEVELS, NATIVE, can_be_written, can_run, describe


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
    given = (rows, weight) if add_to is None else (rows, weight, add_to)
    fits = rows.dim() == weight.dim() == 2 and rows.shape[1] == weight.shape[1] > 0 and can_multiply(rows, weight)
    shape = (*rows.shape[:1], *weight.shape[:1])
    if not (fits and can_run(*given) and (add_to is None or (add_to.shape == shape and can_be_written(add_to)))):
        raise ValueError(f"no kernel multiplies {describe(*given)}")
    results = torch.empty(shape, dtype=rows.dtype) if add_to is None else add_to
    NATIVE.multiply(
        level or LEVELS[0],
        torch.get_num_threads(),
        (rows.data_ptr(), weight.data_ptr(), results.data_ptr()),
        (rows.stride(0), results.stride(0)),
        (*shape, rows.shape[1]),
        add_to is not None,
        rows.dtype == torch.bfloat16,
    )
    return results


def can_multiply(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether there is a kernel for tensors of this kind on this machine; none has gradients."""
    return can_run(rows, weight) and weight.is_contiguous()
