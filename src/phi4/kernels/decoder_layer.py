"""A decoder layer in one native call: between its kernels, Python took a tenth of a step, and of a small model half."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phi4.kernels.adapted import LowRank
from phi4.kernels.elementwise import rotates
from phi4.kernels.instructions import can_run, describe
from phi4.kernels.linear import can_multiply
from phi4.kernels.paged_attention import PagedAttention
from phi4.kernels.quantised import PackedWeight


@dataclass(frozen=True)
class FullLowRank:
    """scale * up(down(row)) of a LoRA that is not quantised, which is added to the rows start <= row < stop.

    Attributes:
        start, stop: the rows.
        down: A of the LoRA, [rank, inputs].
        up: its B, [outputs, rank].
        scale: what comes out of A is multiplied by it.
    """

    start: int
    stop: int
    down: torch.Tensor
    up: torch.Tensor
    scale: float

    def fits(self, rows: torch.Tensor, outputs: int, inputs: int) -> bool:
        """Whether it can be added to the product of rows like these."""
        rank = self.down.shape[0]
        return (
            0 <= self.start < self.stop <= len(rows)
            and self.down.shape == (rank, inputs)
            and self.up.shape == (outputs, rank)
            and rank > 0
            and can_multiply(rows, self.down)
            and can_multiply(rows, self.up)
        )

    @property
    def addresses(self) -> tuple[int, int, tuple[int, int], tuple[int, int], float]:
        """What the kernels take."""
        down, up = ((matrix.data_ptr(), matrix.shape[0]) for matrix in (self.down, self.up))
        return self.start, self.stop, down, up, self.scale


@dataclass(frozen=True)
class LayerLinear:
    """A linear and what LoRAs add to some rows; no row has more than one.

    Attributes:
        weight: [outputs, inputs], quantised or of the rows' type.
        quantised: LoRAs of 8 bits, for a quantised weight only.
        full: LoRAs of the rows' type.
    """

    weight: PackedWeight | torch.Tensor
    quantised: Sequence[LowRank]
    full: Sequence[FullLowRank]

    def fits(self, rows: torch.Tensor, outputs: int, inputs: int) -> bool:
        """Whether it maps as many rows of inputs, of the type of these."""
        weight = self.weight
        if tuple(weight.shape) != (outputs, inputs) or not all(lora.fits(rows, outputs, inputs) for lora in self.full):
            return False
        if isinstance(weight, torch.Tensor):
            return not self.quantised and can_multiply(rows, weight)
        device = weight.codes.device
        return (
            device.type == "cpu"
            and weight.fits
            and all(lora.fits(len(rows), outputs, inputs, device) for lora in self.quantised)
        )

    @property
    def addresses(self) -> tuple[Any, ...]:
        """What the kernels take."""
        full = [lora.addresses for lora in self.full]
        if isinstance(self.weight, torch.Tensor):
            return (0, 0, 0, 0), (self.weight.data_ptr(), self.weight.shape[0]), [], full
        return self.weight.addresses, (0, 0), [lora.addresses for lora in self.quantised], full


@dataclass(frozen=True)
class LayerWeights:
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
    qkv: LayerLinear
    o: LayerLinear
    mlp_norm: torch.Tensor
    gate_up: LayerLinear
    down: LayerLinear
    eps: float

    def fits(self, hidden: torch.Tensor, fused: int, attended: int) -> bool:
        """Whether it takes rows [tokens, hidden] and gives the attention so many values of a token, and back."""
        width, inner = hidden.shape[1], self.down.weight.shape[1]
        return (
            self.attention_norm.shape == self.mlp_norm.shape == (width,)
            and can_run(hidden, self.attention_norm, self.mlp_norm)
            and self.qkv.fits(hidden, fused, width)
            and self.o.fits(hidden, width, attended)
            and self.gate_up.fits(hidden, 2 * inner, width)
            and self.down.fits(hidden, width, inner)
        )


def run_layer(
    layer: LayerWeights, index: int, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, paged: PagedAttention
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
        and rotates(hidden, cos, sin, head_dim)
    ):
        shapes = [tuple(linear.weight.shape) for linear in (layer.qkv, layer.o, layer.gate_up, layer.down)]
        given = describe(hidden, cos, sin, layer.attention_norm, layer.mlp_norm)
        raise ValueError(
            f"no kernel runs a layer of {shapes} over {given} "
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
