"""The steps of both encoders' layers, in the one place where their way is decided: kernels, or plain torch.

The kernels serve bf16 without gradients where the processor has its dot product. Training, fp32, other devices and
machines without compiled kernels take the stock operations. Quantised weights have kernels for every processor.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional

from phi4.kernels import encoder as kernels
from phi4.kernels.encoder import Activation, Ending
from phi4.kernels.quantised_projection import RoundedRows, project_rounded, round_once
from phi4.model.quantised import QuantisedLinear, QuantisedWeight


def project(hidden: torch.Tensor, weight: torch.Tensor | QuantisedWeight, ending: Ending) -> torch.Tensor:
    """A linear layer and what follows it.

    Args:
        hidden: [..., in_features].
        weight: [out_features, in_features], gated [2 * out_features, in_features].
        ending: with a residual of [..., out_features], or none.

    Returns:
        [..., out_features].
    """
    if isinstance(weight, QuantisedWeight):
        rows = _project_quantised(_round(hidden), weight, _of_rows(ending))
    elif kernels.can_encode(hidden, weight) and weight.shape[1] % 2 == 0:
        rows = kernels.project(hidden.reshape(-1, hidden.shape[-1]), weight, _of_rows(ending))
    else:
        return _project_in_torch(hidden, weight, ending)
    return rows.view(*hidden.shape[:-1], rows.shape[-1])


def project_through(hidden: torch.Tensor, layers: Iterable[nn.Linear | QuantisedLinear]) -> list[torch.Tensor]:
    """[..., in_features] through each of some linears, which are all quantised or none: [..., out_features] each."""
    rows: RoundedRows | None = None
    projected = []
    for layer in layers:
        if isinstance(layer, QuantisedLinear):
            rows = rows or _round(hidden)
            own = project_rounded(rows, layer.weight.packed, layer.bias)
            projected.append(own.view(*hidden.shape[:-1], -1))
        else:
            projected.append(project(hidden, layer.weight, Ending(layer.bias)))
    return projected


def _round(hidden: torch.Tensor) -> RoundedRows:
    return round_once(hidden.reshape(-1, hidden.shape[-1]))


def _of_rows(ending: Ending) -> Ending:
    """The same for rows that have been laid end to end."""
    if ending.residual is None:
        return ending
    return replace(ending, residual=ending.residual.reshape(-1, ending.residual.shape[-1]).contiguous())


def _project_quantised(rows: RoundedRows, weight: QuantisedWeight, ending: Ending) -> torch.Tensor:
    """What `project` computes, as [tokens, out_features]."""
    packed, bias, activation, factors = weight.packed, ending.bias, ending.activation, None
    if ending.gated:
        half = packed.codes.shape[0] // 2
        bias, gate_bias = bias.chunk(2)
        factors = project_rounded(rows, packed.blocks(half, 2 * half), gate_bias, activation=activation)
        packed, activation = packed.blocks(0, half), "none"
    return project_rounded(
        rows, packed, bias, activation=activation, scale=ending.scale, factors=factors, residual=ending.residual
    )


def _project_in_torch(hidden: torch.Tensor, weight: torch.Tensor, ending: Ending) -> torch.Tensor:
    """What `project` computes, with the stock operations."""
    result = functional.linear(hidden, weight, ending.bias)
    if ending.gated:
        values, gates = result.chunk(2, dim=-1)
        result = values * _activate(gates, ending.activation)
    else:
        result = _activate(result, ending.activation)
    result = result if ending.scale == 1 else ending.scale * result
    return result if ending.residual is None else ending.residual + result


def _activate(values: torch.Tensor, activation: Activation) -> torch.Tensor:
    match activation:
        case "none":
            return values
        case "gelu":
            return functional.gelu(values, approximate="tanh")
        case "silu":
            return functional.silu(values)
        case "relu":
            return functional.relu(values)


def layer_norm(hidden: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """[..., width] -> [..., width]."""
    if kernels.can_encode(hidden, norm.weight, norm.bias) and hidden.is_contiguous():
        return kernels.layer_norm(hidden, norm.weight, norm.bias, norm.eps)
    return norm(hidden)


def convolve(hidden: torch.Tensor, convolution: nn.Conv1d) -> torch.Tensor:
    """A depthwise convolution over what came before: [sequences, length, width] -> [sequences, length, width]."""
    assert convolution.bias is not None
    if kernels.can_encode(hidden, convolution.weight, convolution.bias) and hidden.is_contiguous():
        return kernels.convolve(hidden, convolution.weight, convolution.bias)
    (kernel_size,) = convolution.kernel_size
    return convolution(functional.pad(hidden.transpose(1, 2), (kernel_size - 1, 0))).transpose(1, 2)


def downsample(hidden: torch.Tensor, convolution: nn.Conv2d, pointwise: nn.Conv2d | None) -> torch.Tensor:
    """A convolution of stride 2 that leaves channels apart, one that mixes them if there is one, and a ReLU.

    Args:
        hidden: [clips, frames, mels, channels].
        convolution: 3 x 3, from one channel or with a group for each.
        pointwise: of kernel 1.

    Returns:
        [clips, frames / 2, mels / 2, channels], sizes rounded up.
    """
    assert convolution.bias is not None
    if kernels.can_encode(hidden, convolution.weight) and hidden.is_contiguous():
        mixed = kernels.downsample(hidden, convolution.weight, convolution.bias, relu=pointwise is None)
        if pointwise is None:
            return mixed
        assert pointwise.bias is not None
        return project(mixed, pointwise.weight.flatten(1), Ending(pointwise.bias, "relu"))
    planes = convolution(hidden.permute(0, 3, 1, 2))
    return functional.relu(planes if pointwise is None else pointwise(planes)).permute(0, 2, 3, 1)
