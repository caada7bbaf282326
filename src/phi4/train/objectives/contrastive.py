"""Contrastive pre-training of the vision tower with SigLIP's own loss."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from phi4.data.example import Example
from phi4.errors import DataError
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.tokenizer import Tokenizer
from phi4.train.objectives.loss import Loss, ObjectiveLoss, first_medium


class ContrastiveLoss(ObjectiveLoss):
    """log sigmoid over all pairs of a row's pictures and all texts that the data hold (arXiv 2303.15343, section 3).

    The text tower is small: the frozen token embeddings of a text, averaged, and one linear layer.
    """

    averages: torch.Tensor

    def __init__(self, model: Phi4Multimodal, answers: Sequence[str], tokenizer: Tokenizer) -> None:
        super().__init__()
        if model.config.vision is None:
            raise DataError("contrastive training needs a model with vision")
        if not all(answers):
            raise DataError("an answer is empty; contrastive training needs a text for each picture: leave it out")
        width, hidden = model.config.vision.hidden_size, model.decoder_config.hidden_size
        self.texts = {text: number for number, text in enumerate(sorted(set(answers)))}
        token_ids = [tokenizer.encode(text, allow_special=False) for text in self.texts]
        self.register_buffer("averages", average_embeddings(model, token_ids), persistent=False)
        self.text_tower = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, width))
        # SigLIP begins with a temperature of 10 and a bias that makes a pair as rarely positive as it is among its
        # 32,768 pictures; here a picture meets as many texts as there are.
        self.log_temperature = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-math.log(len(self.texts))))

    def count(self, examples: Sequence[Example]) -> int:
        """Pictures."""
        return len(examples)

    def forward(self, model: Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        """Compares the global view of each example's picture with every text."""
        crops = [first_medium(example, "vision").data.crops[0] for example in examples]
        weight = model.vision.encoder.patch_embedding.weight
        pictures = model.vision.encoder.summarise(torch.stack(crops).to(weight.device, weight.dtype)).float()
        texts = self.text_tower(self.averages)
        similarity = functional.normalize(pictures, dim=-1) @ functional.normalize(texts, dim=-1).T
        own = torch.tensor([self.texts.get(example.answer, -1) for example in examples], device=weight.device)
        positive = own[:, None] == torch.arange(len(self.texts), device=weight.device)
        scores = similarity * self.log_temperature.exp() + self.bias
        total = -functional.logsigmoid(torch.where(positive, scores, -scores)).sum()
        return Loss(total, int((similarity.argmax(dim=-1) == own).sum()))


@torch.no_grad()
def average_embeddings(model: Phi4Multimodal, token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """The mean token embedding of every text, fp32, [texts, hidden]."""
    return torch.stack([model.embed(torch.tensor(ids, device=model.device)).float().mean(0) for ids in token_ids])
