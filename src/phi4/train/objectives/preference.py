"""Direct preference optimisation (arXiv 2305.18290): the chosen answer against the rejected one."""

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch.nn import functional

from phi4.data.example import Example
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.loss import token_log_probabilities
from phi4.train.objectives.answers import states_before_targets
from phi4.train.objectives.layout import lay_out
from phi4.train.objectives.loss import Loss, ObjectiveLoss


class PreferenceLoss(ObjectiveLoss):
    """-log sigmoid(margin), the margin being beta times how much more the chosen answer gained than the rejected one.

    An answer gains by the log-probability that the model gives it now over the one that a frozen copy gives it, with
    the weights that the stage began with. Earlier answers of a conversation stand in both endings and cancel out.
    """

    figures: ClassVar[tuple[str, ...]] = ("margin",)

    def __init__(self, model: Phi4Mini | Phi4Multimodal, beta: float, recompute: bool) -> None:
        """Copies the model.

        Args:
            model: with the weights that the stage begins with.
            beta: how much a deviation from them costs.
            recompute: whether each layer runs again in the backward pass, to save memory.
        """
        super().__init__()
        # What is frozen never differs and is not copied: with an adapter in training, most of the model.
        shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
        self.reference = copy.deepcopy(model, shared).requires_grad_(False).eval()
        self.beta = beta
        self.recompute = recompute

    def count(self, examples: Sequence[Example]) -> int:
        """Pairs."""
        return len(examples)

    def forward(self, model: Phi4Mini | Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        """Runs both endings of all examples as segments of one packed row, through the model and through its copy."""
        # Nothing of the copy has a gradient, so that none is kept.
        gains = self.score(model, examples) - self.score(self.reference, examples)
        margins = self.beta * (gains[:, 0] - gains[:, 1])
        return Loss(-functional.logsigmoid(margins).sum(), int((margins > 0).sum()), (float(margins.detach().sum()),))

    def score(self, model: Phi4Mini | Phi4Multimodal, examples: Sequence[Example]) -> torch.Tensor:
        """Log-probabilities of the answers: [pairs, 2], the chosen one first."""
        endings = [ending for example in examples for ending in (example, example.rejected) if ending is not None]
        layout = lay_out(model, endings)
        tokens = token_log_probabilities(*states_before_targets(model, layout, self.recompute))
        parts = tokens.split([len(ending.targets) for ending in layout.examples])
        sums = {id(ending): own.sum() for ending, own in zip(layout.examples, parts, strict=True)}
        return torch.stack([sums[id(ending)] for ending in endings]).view(len(examples), 2)
