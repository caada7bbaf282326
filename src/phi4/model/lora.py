"""A linear layer whose LoRA is chosen per segment."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from phi4.config import AdapterConfig
from phi4.kernels.adapted import LowRank, multiply_adapted
from phi4.kernels.decoder_layers import LayerLinear, LayerLora
from phi4.kernels.quantised import PackedWeight
from phi4.model.linear import add_linear, linear
from phi4.model.quantised import QuantisedWeight, new_lora, new_weight
from phi4.model.rounded_product import RoundedProduct
from phi4.model.step import AdapterRun


class AdaptedLinear(nn.Module):
    """y = W x, plus B(scale * A(x)) on the rows of the segments that use an adapter (facts sheet 6.1).

    Rows outside every run get the bits of the bare linear layer: they are never touched after the product with W.
    """

    def __init__(
        self, in_features: int, out_features: int, adapters: Mapping[str, AdapterConfig], bits: int | None = None
    ) -> None:
        super().__init__()
        self.weight = new_weight(out_features, in_features, bits)
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        for name, adapter in adapters.items():
            self.lora_A[name], self.lora_B[name] = new_lora(in_features, out_features, adapter.rank, adapter.bits)
        self.scales = {name: adapter.scale for name, adapter in adapters.items()}
        self.dropouts = {name: adapter.dropout for name, adapter in adapters.items()}
        # Takes the place of the product with W where gradients are kept: see phi4.train.rounded_base.
        self.rounded: RoundedProduct | None = None

    def forward(self, hidden: torch.Tensor, runs: tuple[AdapterRun, ...]) -> torch.Tensor:
        """Maps packed rows.

        Args:
            hidden: [tokens, in_features].
            runs: rows on which an adapter is active.

        Returns:
            [tokens, out_features].
        """
        if isinstance(self.weight, QuantisedWeight):
            quantised = [self._low_rank(run) for run in runs if self._is_quantised(run)]
            output = multiply_adapted(hidden, self.weight.packed, quantised)
            runs = tuple(run for run in runs if not self._is_quantised(run))
        elif self.rounded is not None and torch.is_grad_enabled():
            output = self.rounded(hidden)
        else:
            output = linear(hidden, self.weight)
        for run in runs:
            own = functional.dropout(hidden[run.start : run.stop], self.dropouts[run.adapter], self.training)
            down = linear(own, self.lora_A[run.adapter].weight) * self.scales[run.adapter]  # type: ignore[arg-type]
            up: torch.Tensor | QuantisedWeight = self.lora_B[run.adapter].weight  # type: ignore[assignment]
            # A slice would make autograd copy the whole output: where one run has all rows, there is none.
            whole = run.stop - run.start == output.shape[0]
            rows = output if whole else output[run.start : run.stop]
            add_linear(rows, down, up)
        return output

    def for_layers(self) -> LayerLinear:
        """What the kernel of whole layers takes."""
        loras = {
            name: LayerLora(kernel_matrix(self.lora_A[name].weight), kernel_matrix(self.lora_B[name].weight), scale)
            for name, scale in self.scales.items()
        }
        return LayerLinear(kernel_matrix(self.weight), loras)

    def _is_quantised(self, run: AdapterRun) -> bool:
        """Whether the LoRA of a run is."""
        return isinstance(self.lora_A[run.adapter].weight, QuantisedWeight)

    def _low_rank(self, run: AdapterRun) -> LowRank:
        """A quantised LoRA, as the kernels take it."""
        down: QuantisedWeight = self.lora_A[run.adapter].weight  # type: ignore[assignment]
        up: QuantisedWeight = self.lora_B[run.adapter].weight  # type: ignore[assignment]
        return LowRank(run.start, run.stop, down.packed, up.packed, self.scales[run.adapter])


def kernel_matrix(weight: torch.Tensor | nn.Module) -> PackedWeight | torch.Tensor:
    """A weight as the kernels take it, without gradients."""
    if isinstance(weight, QuantisedWeight):
        return weight.packed
    assert isinstance(weight, torch.Tensor), "a linear has a tensor or a quantised weight"
    return weight.detach()
