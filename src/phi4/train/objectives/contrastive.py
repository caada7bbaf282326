"""Contrastive pre-training of the vision tower with SigLIP's own loss."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from phi4.data.example import Example
from phi4.errors import DataError
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.objectives.guide import Guide
from phi4.train.objectives.loss import Loss, ObjectiveLoss, global_views

# The error of standardised features begins at 1, and the loss of a picture among a thousand texts at 8.
IMITATION_WEIGHT = 10.0

# Of the numbers of a text's vector at first. The smaller, the sooner their direction changes.
TEXT_DEVIATION = 0.5


class ContrastiveLoss(ObjectiveLoss):
    """log sigmoid over all pairs of a row's pictures and all texts that the data hold (arXiv 2303.15343, section 3).

    There is no text tower: each text has a vector, which learns.
    """

    def __init__(self, model: Phi4Multimodal, answers: Sequence[str], guide: Guide | None = None) -> None:
        """Learns which texts there are.

        Args:
            model: has the vision tower.
            answers: of all training records.
            guide: what the tower's features are to imitate at the same time.
        """
        super().__init__()
        if model.config.vision is None:
            raise DataError("contrastive training needs a model with vision")
        if not all(answers):
            raise DataError("an answer is empty; contrastive training needs a text for each picture: leave it out")
        width = model.config.vision.hidden_size
        self.texts = {text: number for number, text in enumerate(sorted(set(answers)))}
        self.text_vectors = nn.Parameter(TEXT_DEVIATION * torch.randn(len(self.texts), width))
        self.guide = guide
        if guide is not None:
            self.imitate = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(guide.mean)))
        # SigLIP begins with a bias that makes a pair as rarely positive as it is among its 32,768 pictures; here a
        # picture meets as many texts as there are. Small batches learn sooner with twice its temperature.
        self.log_temperature = nn.Parameter(torch.tensor(math.log(20.0)))
        self.bias = nn.Parameter(torch.tensor(-math.log(len(self.texts))))

    def count(self, examples: Sequence[Example]) -> int:
        """Pictures."""
        return len(examples)

    def forward(self, model: Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        """Compares the global view of each example's picture with every text."""
        encoder = model.vision.encoder
        crops, mask = global_views(model, examples)
        features = encoder(crops, mask)
        pictures = functional.normalize(encoder.summarise(features).float(), dim=-1)
        similarity = pictures @ functional.normalize(self.text_vectors, dim=-1).T
        own = torch.tensor([self.texts.get(example.answer, -1) for example in examples], device=crops.device)
        positive = own[:, None] == torch.arange(len(self.texts), device=crops.device)
        scores = similarity * self.log_temperature.exp() + self.bias
        total = -functional.logsigmoid(torch.where(positive, scores, -scores)).sum()
        if self.guide is not None:
            errors = self.imitate(features.float()) - self.guide.standardised(crops, mask.shape[-1])
            total = total + IMITATION_WEIGHT * errors.square().mean(dim=(1, 2)).sum()
        return Loss(total, int((similarity.argmax(dim=-1) == own).sum()))
