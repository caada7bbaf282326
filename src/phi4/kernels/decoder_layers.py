"""The decoder layers of a step in one native call: between layers, Python took a third of a small model's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch

from phi4.kernels.elementwise import rotates
from phi4.kernels.instructions import DTYPES, NATIVE, can_run, describe
from phi4.kernels.paged_attention import PagedAttention
from phi4.kernels.quantised import PackedWeight, is_whole

# A name of an adapter, and the rows start <= row < stop that it is active on.
Run = tuple[str, int, int]


@dataclass(frozen=True)
class LayerLora:
    """scale * up(down(row)), which is added to the rows of an adapter: both matrices have 8 bits or the rows' type.

    Attributes:
        down: A of the LoRA, [rank, inputs].
        up: its B, [outputs, rank].
        scale: what comes out of A is multiplied by it.
    """

    down: PackedWeight | torch.Tensor
    up: PackedWeight | torch.Tensor
    scale: float

    def fits(self, outputs: int, inputs: int, dtype: torch.dtype, *, on_quantised: bool) -> bool:
        """Whether there are kernels that add it to a product like this."""
        quantised = isinstance(self.down, PackedWeight)
        rank = self.down.shape[0]
        return (
            quantised == isinstance(self.up, PackedWeight)
            and (on_quantised or not quantised)
            and rank > 0
            and is_matrix(self.down, rank, inputs, dtype)
            and is_matrix(self.up, outputs, rank, dtype)
        )


@dataclass(frozen=True)
class LayerLinear:
    """A linear and its LoRAs.

    Attributes:
        weight: [outputs, inputs], quantised or of the rows' type.
        loras: by the name of their adapter; those of 8 bits are for a quantised weight only.
    """

    weight: PackedWeight | torch.Tensor
    loras: Mapping[str, LayerLora]

    def fits(self, outputs: int, inputs: int, dtype: torch.dtype) -> bool:
        """Whether there are kernels that map so many inputs, of a type, to so many outputs."""
        quantised = isinstance(self.weight, PackedWeight)
        loras = self.loras.values()
        return is_matrix(self.weight, outputs, inputs, dtype) and all(
            lora.fits(outputs, inputs, dtype, on_quantised=quantised) for lora in loras
        )

    @property
    def addresses(self) -> tuple[Any, ...]:
        """What the kernels take."""
        loras = [(addresses(lora.down), addresses(lora.up), lora.scale) for lora in self.loras.values()]
        return addresses(self.weight), loras


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

    @property
    def linears(self) -> tuple[LayerLinear, LayerLinear, LayerLinear, LayerLinear]:
        """All four, in the order in which they run."""
        return self.qkv, self.o, self.gate_up, self.down

    @property
    def fits(self) -> bool:
        """Whether there are kernels for such a layer, and its parts fit each other."""
        norms = (self.attention_norm, self.mlp_norm)
        (width, attended), inner = self.o.weight.shape, self.down.weight.shape[1]
        dtype = self.attention_norm.dtype
        return (
            dtype in DTYPES
            and all(norm.shape == (width,) and is_whole(norm, dtype, torch.device("cpu")) for norm in norms)
            and self.qkv.fits(self.qkv.weight.shape[0], width, dtype)
            and self.o.fits(width, attended, dtype)
            and self.gate_up.fits(2 * inner, width, dtype)
            and self.down.fits(width, inner, dtype)
            and len({tuple(linear.loras) for linear in self.linears}) == 1
        )

    @property
    def addresses(self) -> tuple[Any, ...]:
        """What the kernels take."""
        norms = (self.attention_norm.data_ptr(), self.mlp_norm.data_ptr(), self.eps)
        return norms, tuple(linear.addresses for linear in self.linears)


@dataclass(frozen=True)
class DecoderLayers:
    """Layers of the same sizes with the same adapters, one behind the other. Their weights stay where they are.

    Attributes:
        layers: from the first on.
    """

    layers: Sequence[LayerWeights]

    @cached_property
    def fits(self) -> bool:
        """Whether there are kernels for these layers."""
        like = [
            (layer.attention_norm.dtype, *(linear.weight.shape for linear in layer.linears)) for layer in self.layers
        ]
        adapters = [list(layer.qkv.loras) for layer in self.layers]
        return (
            NATIVE is not None
            and bool(self.layers)
            and all(layer.fits for layer in self.layers)
            and all(one == other for all_of in (like, adapters) for one, other in pairwise(all_of))
        )

    def run(
        self,
        count: int,
        hidden: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        paged: PagedAttention,
        runs: Sequence[Run],
    ) -> torch.Tensor:
        """Runs the first layers; they give the bits that their parts give one after the other.

        Args:
            count: how many.
            hidden: [tokens, hidden].
            cos: [tokens, 1, rotary_dim / 2].
            sin: [tokens, 1, rotary_dim / 2].
            paged: the conversations that the rows belong to; layer n has the n-th part of the cache.
            runs: rows that adapters are active on, in order; no row has two.

        Returns:
            [tokens, hidden].

        Raises:
            ValueError: the tensors do not fit each other, or the processor lacks the instructions.
        """
        if count == 0:
            return hidden
        if not (self.fits and self._take(count, hidden, cos, sin, paged, runs)):
            shapes = [tuple(linear.weight.shape) for layer in self.layers[:1] for linear in layer.linears]
            raise ValueError(
                f"no kernel runs {count} of {len(self.layers)} layers of {shapes} with adapters on {[*runs]} over "
                f"{describe(hidden, cos, sin)} for {paged.conversations.num_tokens} tokens in "
                f"{len(paged.stored.keys)} caches"
            )
        results = torch.empty(hidden.shape, dtype=hidden.dtype)
        kv_heads, slots, head_dim = paged.stored.keys[0].shape
        paged.conversations.run_layers(
            paged.level,
            torch.get_num_threads(),
            self._native,
            (hidden.data_ptr(), hidden.stride(0), results.data_ptr()),
            [(self._adapters[name], start, stop) for name, start, stop in runs],
            (cos.data_ptr(), sin.data_ptr(), cos.shape[2]),
            paged.stored.addresses[:count],
            slots,
            (self._heads(head_dim), kv_heads, head_dim),
            hidden.dtype == torch.bfloat16,
        )
        return results

    def _take(
        self,
        count: int,
        hidden: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        paged: PagedAttention,
        runs: Sequence[Run],
    ) -> bool:
        """Whether everything that a step brings fits the layers and each other."""
        first, stored = self.layers[0], paged.stored
        if not (0 < count <= min(len(self.layers), len(stored.keys)) and stored.fits and hidden.dim() == 2):
            return False
        kv_heads, _, head_dim = stored.keys[0].shape
        heads, ends = self._heads(head_dim), [0, *(row for _, *rows in runs for row in rows), len(hidden)]
        return (
            heads * head_dim == first.o.weight.shape[1]
            and first.qkv.weight.shape[0] == (heads + 2 * kv_heads) * head_dim
            and hidden.shape[1] == first.o.weight.shape[0]
            and can_run(hidden, first.attention_norm)
            and rotates(hidden, cos, sin, head_dim)
            and paged.holds(hidden.dtype, len(hidden), heads)
            and ends == sorted(ends)
            and all(name in self._adapters and start < stop for name, start, stop in runs)
        )

    def _heads(self, head_dim: int) -> int:
        """How many heads of queries there are."""
        return self.layers[0].o.weight.shape[1] // head_dim

    @cached_property
    def _adapters(self) -> dict[str, int]:
        """The place of each adapter among those of a linear."""
        return {name: place for place, name in enumerate(self.layers[0].qkv.loras)}

    @cached_property
    def _native(self) -> Any:
        """What the native module knows of the layers."""
        return NATIVE.DecoderLayers([layer.addresses for layer in self.layers])


def is_matrix(matrix: PackedWeight | torch.Tensor, outputs: int, inputs: int, dtype: torch.dtype) -> bool:
    """Whether a matrix has these sizes, and the kernels take it: on the CPU, quantised or of a type, without gaps."""
    if isinstance(matrix, PackedWeight):
        return matrix.shape == (outputs, inputs) and matrix.fits and matrix.codes.device.type == "cpu"
    return matrix.shape == (outputs, inputs) and is_whole(matrix, dtype, torch.device("cpu"))


def addresses(matrix: PackedWeight | torch.Tensor) -> tuple[Any, ...]:
    """Where a matrix is that is quantised, and where one that is not: one of them is 0."""
    if isinstance(matrix, PackedWeight):
        return matrix.addresses, (0, 0)
    return (0, 0, 0, 0), (matrix.data_ptr(), matrix.shape[0])
