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
from phi4.train.objectives.embeddings import LENGTH_WEIGHT, NearestText, text_embeddings
from phi4.train.objectives.guide import Guide
from phi4.train.objectives.loss import Loss, ObjectiveLoss, global_views

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
        embedding: Tokenizer | None = None,
        guide: Guide | None = None,
    ) -> None:
        """Learns which texts there are.

        Args:
            model: has the vision tower.
            answers: of all training records.
            embedding: the language model's tokenizer, for pictures that are to go through the projector and be near the
                embeddings of the texts; None leaves the language model out of it.
            guide: what the tower's features are to imitate at the same time.
        """
        super().__init__()
        if model.config.vision is None:
            raise DataError("contrastive training needs a model with vision")
        if not all(answers):
            raise DataError("an answer is empty; contrastive training needs a text for each picture: leave it out")
        width = model.config.vision.hidden_size
        self.texts = {text: number for number, text in enumerate(sorted(set(answers)))}
        if embedding is None:
            self.nearest: NearestText | None = None
            self.text_vectors = nn.Parameter(TEXT_DEVIATION * torch.randn(len(self.texts), width))
        else:
            self.nearest = NearestText(text_embeddings(model, embedding, list(self.texts)), whitened=True)
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
        similarity, total = self.compare(model, features)
        own = torch.tensor([self.texts.get(example.answer, -1) for example in examples], device=crops.device)
        positive = own[:, None] == torch.arange(len(self.texts), device=crops.device)
        scores = similarity * self.log_temperature.exp() + self.bias
        total = total - functional.logsigmoid(torch.where(positive, scores, -scores)).sum()
        if self.guide is not None:
            errors = self.imitate(features.float()) - self.guide.standardised(crops, mask.shape[-1])
            total = total + IMITATION_WEIGHT * errors.square().mean(dim=(1, 2)).sum()
        return Loss(total, int((similarity.argmax(dim=-1) == own).sum()))

    def compare(self, model: Phi4Multimodal, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes the cosine between each picture and each text.

        Args:
            model: has the rest of the tower, or the projector.
            features: of the crops, [crops, patches * patches, width].

        Returns:
            [crops, texts], and the summed error of the length of what the projector gives; 0 without it.
        """
        if self.nearest is None:
            pictures = functional.normalize(model.vision.encoder.summarise(features).float(), dim=-1)
            return pictures @ functional.normalize(self.text_vectors, dim=-1).T, pictures.new_zeros(())
        tokens = average_token(model, features)
        return self.nearest.cosines(tokens), LENGTH_WEIGHT * self.nearest.length_error(tokens).sum()


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
