"""What stands between the products of a layer: norm, activation and rotation, without gradients."""

import torch

from phi4.kernels.instructions import LEVELS, NATIVE, can_be_written, can_run, describe


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float, level: str | None = None) -> torch.Tensor:
    """Root-mean-square norm: fp32 inside, the weight applied after the cast back (facts sheet 1.3).

    Args:
        hidden: [tokens, hidden].
        weight: [hidden].
        eps: added to the mean square.
        level: instructions to use, of `LEVELS`; None for the best. The same below.

    Returns:
        [tokens, hidden].

    Raises:
        ValueError: the tensors do not fit, or the processor lacks the instructions. The same below.
    """
    if not can_run(hidden, weight) or hidden.dim() != 2 or weight.shape != hidden.shape[1:]:
        raise ValueError(f"no kernel normalises {describe(hidden, weight)}")
    output = torch.empty(hidden.shape, dtype=hidden.dtype)
    NATIVE.rms_norm(
        level or LEVELS[0],
        torch.get_num_threads(),
        hidden.data_ptr(),
        weight.data_ptr(),
        output.data_ptr(),
        *hidden.shape,
        hidden.stride(0),
        eps,
        hidden.dtype == torch.bfloat16,
    )
    return output


def swiglu(gate_up: torch.Tensor, level: str | None = None) -> torch.Tensor:
    """silu(gate) * up, the gate first: [tokens, 2 * intermediate] -> [tokens, intermediate] (facts sheet 1.2)."""
    if not can_run(gate_up) or gate_up.dim() != 2 or gate_up.shape[1] % 2:
        raise ValueError(f"no kernel gates {describe(gate_up)}")
    output = torch.empty(gate_up.shape[0], gate_up.shape[1] // 2, dtype=gate_up.dtype)
    NATIVE.swiglu(
        level or LEVELS[0],
        torch.get_num_threads(),
        gate_up.data_ptr(),
        output.data_ptr(),
        *output.shape,
        gate_up.stride(0),
        gate_up.dtype == torch.bfloat16,
    )
    return output


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, level: str | None = None) -> None:
    """Rotates the leading dimensions of every head in place, dimension d together with d + rotary_dim / 2.

    Args:
        heads: queries and keys, [tokens, heads, head_dim].
        cos: [tokens, 1, rotary_dim / 2].
        sin: [tokens, 1, rotary_dim / 2].
        level: instructions to use.
    """
    fits = heads.dim() == 3 and heads.shape[2] == heads.stride(1) and can_be_written(heads)
    if not (fits and rotates(heads, cos, sin, heads.shape[2])):
        raise ValueError(f"no kernel rotates {describe(heads, cos, sin)}")
    NATIVE.rotate(
        level or LEVELS[0],
        torch.get_num_threads(),
        (heads.data_ptr(), cos.data_ptr(), sin.data_ptr()),
        heads.stride(0),
        (*heads.shape, cos.shape[2]),
        heads.dtype == torch.bfloat16,
    )


def rotates(rows: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, head_dim: int) -> bool:
    """Whether the heads of rows, [tokens, ...], can be rotated by cos and sin, [tokens, 1, rotary_dim / 2] each."""
    return (
        cos.dim() == 3
        and cos.shape == sin.shape
        and cos.shape[:2] == (rows.shape[0], 1)
        and 2 * cos.shape[2] <= head_dim
        and can_run(rows, cos, sin)
        and cos.is_contiguous()
        and sin.is_contiguous()
    )
