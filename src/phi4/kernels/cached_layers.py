"""What kernels know of the keys and values of all layers: found out once, and not in every step."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from phi4.kernels.cached_bytes import scale_counts
from phi4.kernels.instructions import address
from phi4.kernels.quantised import is_whole

# Those of a layer's keys and values that are bytes, float32 [kv_heads, slots, groups] and [kv_heads, slots, 1].
Scales = tuple[torch.Tensor, torch.Tensor]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class CachedLayers:
    """Storage of all layers. Once a kernel was asked about it, it stays where it is.

    Attributes:
        keys: of each layer, [kv_heads, slots, head_dim].
        values: likewise.
        scales: of each layer, where keys and values are bytes; None where they are numbers like the queries.
    """

    keys: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]
    scales: Sequence[Scales] | None = None

    @cached_property
    def fits(self) -> bool:
        """Whether all layers are alike, and kernels can find their way in them."""
        if not self.keys or self.keys[0].dim() != 3 or min(self.keys[0].shape) == 0:
            return False
        (kv_heads, slots, head_dim), dtype = self.keys[0].shape, self.keys[0].dtype
        counts = scale_counts(head_dim)
        scales = [(part, count) for parts in self.scales or () for part, count in zip(parts, counts, strict=True)]
        return (
            len(self.values) == len(self.keys)
            and all(cache.shape == self.keys[0].shape for cache in (*self.keys, *self.values))
            and all(is_whole(cache, dtype, CPU) for cache in (*self.keys, *self.values))
            and (self.scales is None) == (dtype != torch.int8)
            and (self.scales is None or len(self.scales) == len(self.keys))
            and all(part.shape == (kv_heads, slots, count) for part, count in scales)
            and all(is_whole(part, torch.float32, CPU) for part, _ in scales)
        )

    @cached_property
    def addresses(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Where keys and values of each layer are, and their scales, 0 for none."""
        scales: Sequence[tuple[torch.Tensor | None, torch.Tensor | None]] = self.scales or [(None, None)] * len(
            self.keys
        )
        return [
            ((keys.data_ptr(), values.data_ptr()), (address(of_keys), address(of_values)))
            for keys, values, (of_keys, of_values) in zip(self.keys, self.values, scales, strict=True)
        ]
