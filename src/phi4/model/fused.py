"""RMSNorm and SwiGLU with gradients of their own: both keep little for the backward pass and copy nothing twice."""

from typing import Any

import torch
from torch.nn import functional

from phi4.kernels import elementwise
from phi4.kernels.instructions import can_run


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = hidden.float()
        normed = functional.rms_norm(wide, weight.shape, eps=eps).to(hidden.dtype)
        ctx.save_for_backward(hidden, weight)
        ctx.eps = eps
        return weight * normed

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        hidden, weight = ctx.saved_tensors
        wide = hidden.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + ctx.eps)
        normed = wide * scale
        wide_slope = slope.float()
        weight_slope = None
        if ctx.needs_input_grad[1]:
            weight_slope = (wide_slope * normed).flatten(0, -2).sum(0).to(weight.dtype)
        inner = wide_slope * weight.float()
        overlap = (inner * normed).mean(-1, keepdim=True)
        return inner.sub_(normed.mul_(overlap)).mul_(scale).to(hidden.dtype), weight_slope, None


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square norm: fp32 inside, the weight applied after the cast back (facts sheet 1.3).

    Args:
        hidden: [tokens, hidden].
        weight: [hidden].
        eps: added to the mean square.

    Returns:
        [tokens, hidden].
    """
    if can_run(hidden, weight):
        return elementwise.rms_norm(hidden, weight, eps)
    result: torch.Tensor = _RMSNorm.apply(hidden, weight, eps)  # type: ignore[no-untyped-call]
    return result


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        both = torch.empty_like(gate_up)
        gate_slope, up_slope = both.chunk(2, dim=-1)
        torch.mul(slope, functional.silu(gate), out=up_slope)
        torch.ops.aten.silu_backward.grad_input(slope * up, gate, grad_input=gate_slope)
        return both


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, the gate first: [tokens, 2 * intermediate] -> [tokens, intermediate] (facts sheet 1.2)."""
    if can_run(gate_up):
        return elementwise.swiglu(gate_up)
    result: torch.Tensor = _SwiGLU.apply(gate_up)  # type: ignore[no-untyped-call]
    return result
