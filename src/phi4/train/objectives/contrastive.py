"""Contrastive pre-training of the vision tower with SigLIP's own loss."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from phi4.data.example import Example
from phi4.errors import DataError
from phi4.model.multimodal import Phi4Multimodal
from phi4.model.vision import pool_patches
from phi4.processing.tokenizer import Tokenizer
from phi4.train.objectives.embeddings import distinct_embeddings
from phi4.train.objectives.guide import Guide
from phi4.train.objectives.loss import Loss, ObjectiveLoss, first_medium

# The error of standardised features begins at 1, and the loss of a picture among a thousand texts at 8.
IMITATION_WEIGHT = 10.0

# Of the numbers of a text's vector at first. The smaller, the sooner their direction changes.
TEXT_DEVIATION = 0.5


class ContrastiveLoss(ObjectiveLoss):
    """log sigmoid over all pairs of a row's pictures and all texts that the data hold (arXiv 2303.15343, section 3).

    There is no text tower: each text has a vector, which learns. Grounded, the vector is the mean of its token
    embeddings and stays, so that the projector learns to give what the language model knows the text by.
    """

    def __init__(
        self,
        model: Phi4Multimodal,
        answers: Sequence[str],
        tokenizer: Tokenizer,
        grounded: bool = False,
        guide: Guide | None = None,
    ) -> None:
        """Learns which texts there are.

        Args:
            model: has the vision tower.
            answers: of all training records.
            tokenizer: the language model's.
            grounded: whether the projector's outputs are compared, with the texts' embeddings.
            guide: what the tower's features are to imitate at the same time.
        """
        super().__init__()
        if model.config.vision is None:
            raise DataError("contrastive training needs a model with vision")
        if not all(answers):
            raise DataError("an answer is empty; contrastive training needs a text for each picture: leave it out")
        width = model.config.vision.hidden_size
        self.texts = {text: number for number, text in enumerate(sorted(set(answers)))}
        self.grounded = grounded
        if grounded:
            vectors = distinct_embeddings(model, tokenizer, list(self.texts))
            self.text_vectors = nn.Parameter(vectors, requires_grad=False)
        else:
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
        weight = encoder.patch_embedding.weight
        views = [first_medium(example, "vision").data for example in examples]
        crops = torch.stack([view.crops[0] for view in views]).to(weight.device, weight.dtype)
        mask = torch.stack([view.mask[0] for view in views]).to(weight.device)
        features = encoder(crops, mask)
        pictures = average_token(model, features) if self.grounded else encoder.summarise(features)
        pictures = functional.normalize(pictures.float(), dim=-1)
        similarity = pictures @ functional.normalize(self.text_vectors, dim=-1).T
        own = torch.tensor([self.texts.get(example.answer, -1) for example in examples], device=weight.device)
        positive = own[:, None] == torch.arange(len(self.texts), device=weight.device)
        scores = similarity * self.log_temperature.exp() + self.bias
        total = -functional.logsigmoid(torch.where(positive, scores, -scores)).sum()
        if self.guide is not None:
            errors = self.imitate(features.float()) - self.guide.standardised(crops, mask.shape[-1])
            total = total + IMITATION_WEIGHT * errors.square().mean(dim=(1, 2)).sum()
        return Loss(total, int((similarity.argmax(dim=-1) == own).sum()))


def average_token(model: Phi4Multimodal, features: torch.Tensor) -> torch.Tensor:
    """The mean of what the language model would get of each crop, without separators.

    Args:
        model: has the projector.
        features: of the crops, [crops, patches * patches, width].

    Returns:
        [crops, hidden].
    """
    tokens: torch.Tensor = model.vision.projector(pool_patches(features, math.isqrt(features.shape[1])))
    return tokens.mean(dim=(1, 2))
