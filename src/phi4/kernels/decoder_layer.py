"""A decoder layer over quantised weights in one native call: between its kernels, Python took a tenth of a step."""

from dataclasses import dataclass

import torch

from phi4.kernels.adapted import PackedLinear
from phi4.kernels.instructions import can_run, describe
from phi4.kernels.paged_attention import PagedAttention


@dataclass(frozen=True)
class PackedLayer:
    """What a decoder layer consists of.

    Attributes:
        attention_norm: the weight of the norm before the attention, [hidden].
        qkv: [(heads + 2 * kv_heads) * head_dim, hidden].
        o: [hidden, heads * head_dim].
        mlp_norm: the weight of the norm before the MLP, [hidden].
        gate_up: the gate first, [2 * intermediate, hidden].
        down: [hidden, intermediate].
        eps: what norms add to the mean square.
    """

    attention_norm: torch.Tensor
    qkv: PackedLinear
    o: PackedLinear
    mlp_norm: torch.Tensor
    gate_up: PackedLinear
    down: PackedLinear
    eps: float

    def fits(self, hidden: torch.Tensor, fused: int, attended: int) -> bool:
        """Whether it takes rows [tokens, hidden] and gives the attention so many values of a token, and back."""
        tokens, width = hidden.shape
        inner = self.down.weight.shape[1]
        return (
            self.attention_norm.shape == self.mlp_norm.shape == (width,)
            and can_run(hidden, self.attention_norm, self.mlp_norm)
            and self.qkv.fits(tokens, fused, width)
            and self.o.fits(tokens, width, attended)
            and self.gate_up.fits(tokens, 2 * inner, width)
            and self.down.fits(tokens, width, inner)
        )


def run_layer(
    layer: PackedLayer, index: int, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, paged: PagedAttention
) -> torch.Tensor:
    """Runs one layer; it gives the bits that its parts give one after the other.

    Args:
        layer: the weights.
        index: of the layer, whose part of the cache it is.
        hidden: [tokens, hidden].
        cos: [tokens, 1, rotary_dim / 2].
        sin: [tokens, 1, rotary_dim / 2].
        paged: the conversations that the rows belong to.

    Returns:
        [tokens, hidden].

    Raises:
        ValueError: the tensors do not fit each other, or the processor lacks the instructions.
    """
    kv_heads, _, head_dim = paged.keys[index].shape
    attended = layer.o.weight.shape[1]
    fused = attended + 2 * kv_heads * head_dim
    if not (
        hidden.dim() == 2
        and attended % head_dim == 0
        and layer.fits(hidden, fused, attended)
        and paged.holds(index, hidden.dtype, len(hidden), attended // head_dim)
        and rotates(cos, sin, hidden, head_dim)
    ):
        weights = [linear.weight.codes for linear in (layer.qkv, layer.o, layer.gate_up, layer.down)]
        raise ValueError(
            f"no kernel runs a layer over {describe(hidden, cos, sin, *weights)} "
            f"for {paged.conversations.num_tokens} tokens and heads of {head_dim}"
        )
    results = torch.empty(hidden.shape, dtype=hidden.dtype)
    paged.conversations.run_layer(
        paged.level,
        torch.get_num_threads(),
        (hidden.data_ptr(), hidden.stride(0), results.data_ptr()),
        (layer.attention_norm.data_ptr(), layer.mlp_norm.data_ptr(), layer.eps),
        tuple(linear.addresses for linear in (layer.qkv, layer.o, layer.gate_up, layer.down)),
        (cos.data_ptr(), sin.data_ptr(), cos.shape[2]),
        *paged.storage(index),
        (attended // head_dim, kv_heads, head_dim),
        hidden.dtype == torch.bfloat16,
    )
    return results


def rotates(cos: torch.Tensor, sin: torch.Tensor, hidden: torch.Tensor, head_dim: int) -> bool:
    """Whether the heads of all rows can be rotated by these."""
    return (
        cos.dim() == 3
        and cos.shape == sin.shape
        and cos.shape[:2] == (hidden.shape[0], 1)
        and 2 * cos.shape[2] <= head_dim
        and can_run(hidden, cos, sin)
        and cos.is_contiguous()
        and sin.is_contiguous()
    )
