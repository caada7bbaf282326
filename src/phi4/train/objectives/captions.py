"""Captions without a language model: what the projector gives of a picture is the text about it, token by token."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from phi4.data.example import Example
from phi4.errors import DataError
from phi4.model.multimodal import Phi4Multimodal
from phi4.model.vision import pool_patches
from phi4.processing.tokenizer import Tokenizer
from phi4.train.objectives.embeddings import LENGTH_WEIGHT, NearestText
from phi4.train.objectives.loss import Loss, ObjectiveLoss, global_views

# Class 0 of `NearestText`.
END = 0


class CaptionLoss(ObjectiveLoss):
    """Cross-entropy between the answer's tokens and the tokens whose embeddings are nearest, place by place.

    The first token of the projector stands for the first of the answer, and so on; behind the answer, they stand for
    nothing. What an answer has more than that is left to the language model. So it has to learn little more than to
    repeat what it gets.
    """

    def __init__(self, model: Phi4Multimodal, answers: Sequence[str], tokenizer: Tokenizer) -> None:
        """Learns which tokens there are.

        Args:
            model: has the vision tower.
            answers: of all training records.
            tokenizer: the language model's.
        """
        super().__init__()
        if model.config.vision is None:
            raise DataError("caption training needs a model with vision")
        self.tokenizer = tokenizer
        token_ids = sorted({token for answer in set(answers) for token in self._encode(answer)})
        self.classes = {token: number for number, token in enumerate(token_ids, start=END + 1)}
        with torch.no_grad():
            embeddings = model.embed(torch.tensor(token_ids, device=model.device)).float()
        self.nearest = NearestText(embeddings)

    def count(self, examples: Sequence[Example]) -> int:
        """Pictures."""
        return len(examples)

    def forward(self, model: Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        """Compares the global view of each example's picture with its answer."""
        crops, mask = global_views(model, examples)
        features = model.vision.encoder(crops, mask)
        tokens = model.vision.projector(pool_patches(features, mask.shape[-1])).flatten(1, 2)
        targets = torch.tensor([self._targets(e.answer, tokens.shape[1]) for e in examples], device=tokens.device)
        scores = self.nearest(tokens)
        losses = functional.cross_entropy(scores.transpose(1, 2), targets, reduction="none").mean(dim=1)
        losses = losses + LENGTH_WEIGHT * self.nearest.length_error(tokens).mean(dim=1)
        right = (scores.argmax(dim=-1) == targets).all(dim=1)
        return Loss(losses.sum(), int(right.sum()))

    def _encode(self, answer: str) -> list[int]:
        return self.tokenizer.encode(answer, allow_special=False)

    def _targets(self, answer: str, places: int) -> list[int]:
        """The class of every place. Tokens that no training answer has, as validation may, are never found."""
        classes = [self.classes.get(token, -100) for token in self._encode(answer)]
        return (classes + places * [END])[:places]
