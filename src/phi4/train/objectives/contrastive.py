"""Contrastive pre-training of the vision tower with SigLIP's own loss."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from phi4.data.example import Example
from phi4.errors import DataError
from phi4.inputs import ImageCrops
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.tokenizer import Tokenizer
from phi4.train.objectives.loss import Loss, ObjectiveLoss


class ContrastiveLoss(ObjectiveLoss):
    """log sigmoid over all pairs of a row's pictures and all texts that the data hold (arXiv 2303.15343, section 3).

    The text tower is small: the frozen token embeddings of a text, averaged, and two linear layers.
    """

    def __init__(self, model: Phi4Multimodal, answers: Sequence[str], tokenizer: Tokenizer) -> None:
        super().__init__()
        if model.config.vision is None:
            raise DataError("contrastive training needs a model with vision")
        width, hidden = model.config.vision.hidden_size, model.decoder_config.hidden_size
        self.texts = {text: number for number, text in enumerate(sorted(set(answers)))}
        self.token_ids = [tokenizer.encode(text, allow_special=False) for text in self.texts]
        self.text_tower = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, width)
        )
        # The initial values of SigLIP: a temperature of 10 and a bias that makes every pair a negative one.
        self.log_temperature = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def count(self, examples: Sequence[Example]) -> int:
        """Pictures."""
        return len(examples)

    def forward(self, model: Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        """Compares the global view of each example's picture with every text."""
        media = [medium.data for example in examples for medium in example.inputs.media]
        crops = [data.crops[0] for data in media if isinstance(data, ImageCrops)]
        weight = model.vision.encoder.patch_embedding.weight
        pictures = model.vision.encoder.summarise(torch.stack(crops).to(weight.device, weight.dtype)).float()
        texts = self.encode_texts(model)
        similarity = functional.normalize(pictures, dim=-1) @ functional.normalize(texts, dim=-1).T
        own = torch.tensor([self.texts.get(example.record.answer, -1) for example in examples], device=weight.device)
        positive = own[:, None] == torch.arange(len(self.texts), device=weight.device)
        scores = similarity * self.log_temperature.exp() + self.bias
        total = -functional.logsigmoid(torch.where(positive, scores, -scores)).sum()
        return Loss(total, int((similarity.argmax(dim=-1) == own).sum()))

    def encode_texts(self, model: Phi4Multimodal) -> torch.Tensor:
        """Encodes all texts: [texts, vision width]."""
        return self.text_tower(self._averages(model))

    def _averages(self, model: Phi4Multimodal) -> torch.Tensor:
        """The mean token embedding of every text: [texts, hidden]."""
        lengths = torch.tensor([len(ids) for ids in self.token_ids], device=model.device)
        tokens = torch.tensor([token for ids in self.token_ids for token in ids], device=model.device)
        owners = torch.arange(len(lengths), device=model.device).repeat_interleave(lengths)
        sums = torch.zeros(len(lengths), model.decoder_config.hidden_size, device=model.device)
        return sums.index_add(0, owners, model.embed(tokens).float()) / lengths[:, None]
