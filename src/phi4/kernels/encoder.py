"""What the encoders of pictures and sounds are made of, for bf16 on processors with its dot product.

Sums are fp32 and rounded once. What a sequence becomes depends on itself alone, not on the others in a pass.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from phi4.kernels.instructions import DTYPES, LEVELS, NATIVE, address, can_run, describe, is_aligned

Activation = Literal["none", "gelu", "silu", "relu"]
# In the order of activation.h.
ACTIVATIONS: tuple[Activation, ...] = ("none", "gelu", "silu", "relu")


@dataclass(frozen=True)
class Ending:
    """What follows the product of a linear layer: scale * activation(product + bias) + residual.

    Where gated, the first half of the outputs are values and the second half their gates: values * activation(gates).

    Attributes:
        bias: as many as rows of the weight.
        activation: "gelu" is the one with tanh.
        gated: whether there are gates; the weight has twice the outputs then.
        scale: of what is added to the residual.
        residual: [..., out_features], or None.
    """

    bias: torch.Tensor
    activation: Activation = "none"
    gated: bool = False
    scale: float = 1.0
    residual: torch.Tensor | None = None


def can_encode(*tensors: torch.Tensor) -> bool:
    """Whether these kernels take tensors of this kind together on this machine; none has gradients."""
    return "avx512_bf16" in LEVELS and tensors[0].dtype == torch.bfloat16 and can_run(*tensors)


def project(rows: torch.Tensor, weight: torch.Tensor, ending: Ending) -> torch.Tensor:
    """A linear layer and what follows it.

    Args:
        rows: [tokens, in_features].
        weight: [out_features, in_features], gated [2 * out_features, in_features].
        ending: with a bias in bf16 or fp32, and a contiguous residual of [tokens, out_features], or none.

    Returns:
        [tokens, out_features].

    Raises:
        ValueError: the tensors do not fit each other, or no kernel takes them.
    """
    bias, residual, gated = ending.bias, ending.residual, ending.gated
    given = (rows, weight) if residual is None else (rows, weight, residual)
    fits = (
        rows.dim() == weight.dim() == 2
        and rows.shape[1] == weight.shape[1]
        and rows.shape[1] % 2 == 0
        and not (gated and weight.shape[0] % 2)
        and bias.shape == weight.shape[:1]
        and bias.device == rows.device
        and bias.dtype in DTYPES
        and is_aligned(bias)
        and weight.is_contiguous()
        and can_encode(*given)
    )
    if not (fits and ending.activation in ACTIVATIONS):
        raise ValueError(
            f"no kernel projects {describe(*given, bias)} with gates: {gated}, activation: {ending.activation}"
        )
    (tokens, inputs), outputs = rows.shape, weight.shape[0] // (2 if gated else 1)
    if residual is not None and not (residual.shape == (tokens, outputs) and residual.is_contiguous()):
        raise ValueError(f"no kernel adds {describe(residual)} to {tokens} x {outputs} results")
    wide_bias, results = bias.float().contiguous(), torch.empty(tokens, outputs, dtype=rows.dtype)
    NATIVE.project(
        LEVELS[0],
        torch.get_num_threads(),
        (rows.data_ptr(), weight.data_ptr(), wide_bias.data_ptr(), address(residual), results.data_ptr()),
        rows.stride(0),
        (tokens, outputs, inputs),
        ending.scale,
        ACTIVATIONS.index(ending.activation),
        gated,
    )
    return results


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Attention in which every position of a sequence sees every other.

    Args:
        queries: [sequences, length, heads, head_dim].
        keys: the same.
        values: the same.
        bias: added to the scores, broadcast to [sequences, heads, length (query), length (key)]; -inf hides a key, and
            it then changes no bit. None adds nothing.

    Returns:
        [sequences, length, heads, head_dim].

    Raises:
        ValueError: the tensors do not fit each other, or no kernel takes them.
    """
    if not (_are_heads(queries, keys, values) and can_encode(queries, keys, values)):
        raise ValueError(f"no kernel attends to {describe(queries, keys, values)}")
    sequences, length, heads, head_dim = queries.shape
    strides: tuple[int, ...] = (0, 0, 0)
    if bias is not None:
        scores = (sequences, heads, length, length)
        if not (can_encode(queries, bias) and _broadcasts(bias, scores)):
            raise ValueError(f"no kernel adds {describe(bias)} to the scores of {describe(queries)}")
        if bias.shape[-1] != length:
            # The kernel finds the numbers of all keys beside each other.
            bias = bias.expand(*bias.shape[:-1], length).contiguous()
        bias = bias.expand(scores)
        strides = bias.stride()[:3]
    results = torch.empty(sequences, length, heads, head_dim, dtype=queries.dtype)
    NATIVE.attend_fully(
        torch.get_num_threads(),
        (queries.data_ptr(), keys.data_ptr(), values.data_ptr(), address(bias), results.data_ptr()),
        queries.stride(1),
        strides,
        (sequences, length, heads, head_dim),
    )
    return results


def layer_norm(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    """Normalises the last axis of contiguous [..., width].

    Args:
        rows: [..., width].
        weight: [width].
        bias: [width].
        eps: added to the variance.

    Returns:
        [..., width].

    Raises:
        ValueError: the tensors do not fit each other, or no kernel takes them.
    """
    fits = rows.is_contiguous() and weight.shape == bias.shape == rows.shape[-1:] and weight.numel() > 0
    if not (fits and can_encode(rows, weight, bias)):
        raise ValueError(f"no kernel normalises {describe(rows, weight, bias)}")
    results = torch.empty_like(rows)
    NATIVE.layer_norm(
        torch.get_num_threads(),
        (rows.data_ptr(), weight.data_ptr(), bias.data_ptr(), results.data_ptr()),
        rows.numel() // rows.shape[-1],
        rows.shape[-1],
        eps,
    )
    return results


def convolve(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Mixes each channel with the positions before it; before the first there are zeros.

    Args:
        rows: contiguous [sequences, length, width].
        weight: of the position itself last, [width, 1, kernel_size].
        bias: [width].

    Returns:
        [sequences, length, width].

    Raises:
        ValueError: the tensors do not fit each other, or no kernel takes them.
    """
    fits = (
        rows.dim() == weight.dim() == 3
        and rows.is_contiguous()
        and weight.shape[:2] == (rows.shape[2], 1)
        and bias.shape == rows.shape[2:]
    )
    if not (fits and can_encode(rows, weight, bias)):
        raise ValueError(f"no kernel convolves {describe(rows, weight, bias)}")
    by_position, wide_bias, results = weight[:, 0].T.float().contiguous(), bias.float(), torch.empty_like(rows)
    NATIVE.convolve(
        torch.get_num_threads(),
        (rows.data_ptr(), by_position.data_ptr(), wide_bias.data_ptr(), results.data_ptr()),
        (*rows.shape, weight.shape[2]),
    )
    return results


def downsample(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, relu: bool) -> torch.Tensor:
    """Halves frames and mels, rounding up, with 3 x 3 neighbours and zeros around the clip.

    Args:
        rows: contiguous [clips, frames, mels, channels]; from a single channel come all outputs, from several each
            from its own.
        weight: [out_channels, 1, 3, 3].
        bias: [out_channels].
        relu: whether what is negative becomes 0.

    Returns:
        [clips, frames / 2, mels / 2, out_channels].

    Raises:
        ValueError: the tensors do not fit each other, or no kernel takes them.
    """
    fits = (
        rows.dim() == weight.dim() == 4
        and rows.is_contiguous()
        and weight.shape[1:] == (1, 3, 3)
        and bias.shape == weight.shape[:1]
        and rows.shape[3] in (1, weight.shape[0])
    )
    if not (fits and can_encode(rows, weight, bias)):
        raise ValueError(f"no kernel downsamples {describe(rows, weight, bias)}")
    (clips, frames, mels, channels), outputs = rows.shape, weight.shape[0]
    by_place, wide_bias = weight.flatten(1).T.float().contiguous(), bias.float()
    results = torch.empty(clips, -(-frames // 2), -(-mels // 2), outputs, dtype=rows.dtype)
    NATIVE.downsample(
        torch.get_num_threads(),
        (rows.data_ptr(), by_place.data_ptr(), wide_bias.data_ptr(), results.data_ptr()),
        (clips, frames, mels, outputs),
        channels == 1,
        relu,
    )
    return results


def _are_heads(*tensors: torch.Tensor) -> bool:
    """Whether these are [sequences, length, heads, head_dim] of one shape, and their positions equally far apart."""
    shape, row_stride = tensors[0].shape, tensors[0].stride()[1:2]
    return all(
        one.dim() == 4
        and one.shape == shape
        and shape[3] % 2 == 0
        and one.stride() == (shape[1] * row_stride[0], row_stride[0], shape[3], 1)
        for one in tensors
    )


def _broadcasts(tensor: torch.Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a tensor can be expanded to a shape."""
    own = (1,) * (len(shape) - tensor.dim()) + tensor.shape
    return len(own) == len(shape) and all(have in (1, want) for have, want in zip(own, shape, strict=True))
