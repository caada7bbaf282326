"""Norm and activation with hand-written gradients: the bits of the plain formulas, and autograd's gradients."""

import pytest
import torch
from torch.nn import functional

from phi4.model.fused import rms_norm, swiglu


def plain_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return weight * functional.rms_norm(hidden.float(), weight.shape, eps=eps).to(hidden.dtype)


def plain_swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return up * functional.silu(gate)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_values_are_those_of_the_plain_formulas_bit_for_bit(dtype: torch.dtype) -> None:
    hidden, weight = torch.randn(7, 24).to(dtype), torch.randn(24).to(dtype)
    assert torch.equal(rms_norm(hidden, weight, 1e-5), plain_norm(hidden, weight, 1e-5))
    assert torch.equal(swiglu(hidden), plain_swiglu(hidden))


def test_the_gradients_are_those_of_autograd() -> None:
    hidden = torch.randn(7, 24, requires_grad=True)
    weight = torch.randn(24, requires_grad=True)
    slope = torch.randn(7, 24)
    ours = torch.autograd.grad(rms_norm(hidden, weight, 1e-5), (hidden, weight), slope)
    theirs = torch.autograd.grad(plain_norm(hidden, weight, 1e-5), (hidden, weight), slope)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
    slope = torch.randn(7, 12)
    (own,) = torch.autograd.grad(swiglu(hidden), hidden, slope)
    (other,) = torch.autograd.grad(plain_swiglu(hidden), hidden, slope)
    torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


def test_a_frozen_weight_gets_no_gradient() -> None:
    hidden = torch.randn(3, 8, requires_grad=True)
    weight = torch.ones(8)
    rms_norm(hidden, weight, 1e-5).sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None
